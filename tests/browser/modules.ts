/**
 * What a browser is served: the tests' modules without their types, and in one file each the packages that they use and
 * the library. Groups of workers start some hundred workers, each of which would load a hundred modules.
 */

import { stripTypeScriptTypes } from "node:module";
import { fileURLToPath } from "node:url";

const ROOT = new URL("../../", import.meta.url);
const INSIDE = "/tests/browser/inside";

/** What stands in for modules that browsers do not have. */
const STAND_INS: Readonly<Record<string, string>> = {
  "node:assert/strict": `${INSIDE}/assert.ts`,
};
/** Where packages of npm are served, and the whole library. */
const PACKAGES = "/npm/";
const LIBRARY = "/library.js";
const IS_LIBRARY = /^\/(mod|lib\/.+|kernels\/.+)\.ts$/;
/** Not for browsers: native libraries, and what compiles the kernels. */
const NOT_FOR_BROWSERS = /^\/(lib\/groups\/mpi\b|kernels\/wasm\/compile)/;
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
  if (path === LIBRARY) return { body: await bundleLibrary(), type: script };
  if (path.startsWith(PACKAGES)) {
    const name = path.slice(PACKAGES.length);
    const named = `export * from "${name}";`;
    const all = name === "fast-check" ? `${named} export { default } from "${name}";` : named;
    return { body: await bundle(all), type: script };
  }
  const body = await readIfThere(new URL(`.${path}`, ROOT));
  if (body === null) return null;
  if (path.endsWith(".json")) return { body, type: "application/json" };
  if (!path.endsWith(".ts")) return { body, type: "application/octet-stream" };
  if (IS_LIBRARY.test(path)) return { body: await partOfLibrary(path), type: script };
  return { body: forBrowsers(path, new TextDecoder().decode(body)), type: script };
}

/** A module of the library, which hands on what the one file has of it. */
async function partOfLibrary(path: string): Promise<string> {
  const names = Object.keys(await import(new URL(`.${path}`, ROOT).href));
  return names.length === 0
    ? "export {};"
    : `import { ${nameOf(path)} as all } from "${LIBRARY}"; export const { ${names} } = all;`;
}

/** The whole library, each module under a name of its own. */
async function bundleLibrary(): Promise<string> {
  const paths = ["/mod.ts", ...await filesIn("/lib"), ...await filesIn("/kernels")];
  const own = paths.filter((path) => IS_LIBRARY.test(path) && !NOT_FOR_BROWSERS.test(path));
  const lines = own.map((path) =>
    `export * as ${nameOf(path)} from ${JSON.stringify(new URL(`.${path}`, ROOT).href)};`
  );
  return await bundle(lines.join("\n"));
}

function nameOf(path: string): string {
  return path.slice(1, -".ts".length).replaceAll("/", "$");
}

async function filesIn(folder: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(new URL(`.${folder}`, ROOT))) {
    if (isDirectory && name !== "assembly") found.push(...await filesIn(`${folder}/${name}`));
    else found.push(`${folder}/${name}`);
  }
  return found;
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

/** Bundles a module, whose names are those of deno.json. */
async function bundle(module: string): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: "syncbn_browser_" });
  try {
    const source = `${folder}/source.ts`;
    await Deno.writeTextFile(source, module);
    const config = fileURLToPath(new URL("deno.json", ROOT));
    const flags = ["--quiet", "--platform=browser", `--config=${config}`];
    const args = ["bundle", ...flags, `--output=${folder}/made.js`, source];
    const { success, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    return await Deno.readTextFile(`${folder}/made.js`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
