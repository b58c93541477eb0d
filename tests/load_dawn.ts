/** The pinned Dawn: 130 MB that `dawn.lock` names and the project's own lock does not, so that no other task fetches it. */

/** Where it comes from; not for the checker, which would ask for it everywhere. */
export const DAWN = "npm:webgpu@0.6.2";

/** Loads Dawn; needs --allow-ffi, and `--lock=tests/dawn.lock` where the project's lock is frozen. */
export async function loadDawn(): Promise<GPU> {
  const { create }: { readonly create: (options: readonly string[]) => GPU } = await import(DAWN);
  return create([]);
}
