/** Node's own modules, which Deno has too. */

/** Asks the platform at run time: an import would stop bundles for browsers. Node answers since 20.16 and 22.3. */
export function builtIn<T>(name: string): T | undefined {
  type Host = { readonly getBuiltinModule?: (name: string) => T | undefined };
  const { process } = globalThis as { readonly process?: Host };
  return process?.getBuiltinModule?.(name);
}
