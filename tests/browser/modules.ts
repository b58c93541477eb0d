/** What a browser is served: this repository's modules without their types, and the packages of the tests in one file each. */

import { stripTypeScriptTypes } from "node:module";
import { fileURLToPath } from "node:url";

const ROOT = new URL("../../", import.meta.url);
const INSIDE = "/tests/browser/inside";

/** What stands in for modules that browsers do not have. */
const STAND_INS: Readonly<Record<string, string>> = {
  "node:assert/strict": `${INSIDE}/assert.ts`,
};
/** Where packages of npm are served. */
const PACKAGES = "/npm/";
const BARE = /(\bfrom |\bimport )"((?:node:|fast-check|pure-rand)[^"]*)"/g;
/** A module that speaks of it gets one of its own: a global one would tell the library that it runs in Deno. */
const DENO = /\bDeno\.\w/;

/** A file as it is served. */
export interface Served {
  readonly body: string | Uint8Array<ArrayBuffer>;
  readonly type: string;
}

/** Finds files by the path of their address; the text of each is made once. */
export function createModules(): (path: string) => Promise<Served | null> {
  const made = new Map<string, Promise<Served | null>>();
  return (path) => {
    const known = made.get(path) ?? make(path);
    made.set(path, known);
    return known;
  };
}

async function make(path: string): Promise<Served | null> {
  const script = "text/javascript";
  if (path.startsWith(PACKAGES)) {
    return { body: await bundlePackage(path.slice(PACKAGES.length)), type: script };
  }
  const body = await readIfThere(new URL(`.${path}`, ROOT));
  if (body === null) return null;
  if (path.endsWith(".json")) return { body, type: "application/json" };
  if (!path.endsWith(".ts")) return { body, type: "application/octet-stream" };
  return { body: forBrowsers(path, new TextDecoder().decode(body)), type: script };
}

/** A module without types, with addresses where it has names. */
function forBrowsers(path: string, text: string): string {
  const code = stripTypeScriptTypes(text).replaceAll(
    BARE,
    (_, before, name) => `${before}"${STAND_INS[name] ?? PACKAGES + name}"`,
  );
  const needsDeno = path.startsWith("/tests/") && !path.startsWith(INSIDE) && DENO.test(code);
  // In the first line, so that the numbers of lines stay what they are.
  return needsDeno ? `import { Deno } from "${INSIDE}/deno.ts"; ${code}` : code;
}

async function readIfThere(file: URL): Promise<Uint8Array<ArrayBuffer> | null> {
  try {
    return await Deno.readFile(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** Bundles a package that deno.json names. */
async function bundlePackage(name: string): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: "syncbn_browser_" });
  try {
    const source = `${folder}/package.ts`;
    const named = `export * from "${name}";`;
    await Deno.writeTextFile(
      source,
      name === "fast-check" ? `${named} export { default } from "${name}";` : named,
    );
    const config = fileURLToPath(new URL("deno.json", ROOT));
    const flags = ["--quiet", "--platform=browser", `--config=${config}`];
    const args = ["bundle", ...flags, `--output=${folder}/package.js`, source];
    const { success, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
    if (!success) throw new Error(`${name}: ${new TextDecoder().decode(stderr)}`);
    return await Deno.readTextFile(`${folder}/package.js`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
