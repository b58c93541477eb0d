/**
 * What a browser is served: the tests' modules without their types, and in one file each the packages that they use and
 * the library's two parts. Groups of workers start some hundred workers, each of which would load a hundred modules.
 */

import { stripTypeScriptTypes } from "node:module";
import { fileURLToPath } from "node:url";

const ROOT = new URL("../../", import.meta.url);
const INSIDE = "/tests/browser/inside";
const SCRIPT = "text/javascript";

/** What stands in for modules that browsers do not have. */
const STAND_INS: Readonly<Record<string, string>> = {
  "node:assert/strict": `${INSIDE}/assert.ts`,
};
/** Where packages of npm are served, and the library. */
const PACKAGES = "/npm/";
const LIBRARY = "/library/";
/** What most ranks do without: more than half of the text that each worker would have to read. */
const NOT_FOR_RANKS = /^\/(kernels|lib\/adapters|lib\/checkpoint)\b/;
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
  let library: ReturnType<typeof bundleLibrary> | undefined;
  const fromLibrary = async (name: string): Promise<Served | null> => {
    library ??= bundleLibrary();
    const body = (await library).get(name);
    return body === undefined ? null : { body, type: SCRIPT };
  };
  return (path) => {
    const known = made.get(path) ??
      (path.startsWith(LIBRARY) ? fromLibrary(path.slice(LIBRARY.length)) : make(path));
    made.set(path, known);
    return known;
  };
}

async function make(path: string): Promise<Served | null> {
  if (path.startsWith(PACKAGES)) {
    const name = path.slice(PACKAGES.length);
    const named = `export * from "${name}";`;
    const all = name === "fast-check" ? `${named} export { default } from "${name}";` : named;
    const [body] = (await bundle({ package: all })).values();
    return { body, type: SCRIPT };
  }
  const body = await readIfThere(new URL(`.${path}`, ROOT));
  if (body === null) return null;
  if (path.endsWith(".json")) return { body, type: "application/json" };
  if (!path.endsWith(".ts")) return { body, type: "application/octet-stream" };
  if (IS_LIBRARY.test(path)) return { body: await moduleOfLibrary(path), type: SCRIPT };
  return { body: forBrowsers(path, new TextDecoder().decode(body)), type: SCRIPT };
}

/** A module of the library, which hands on what the file of its part has of it. */
async function moduleOfLibrary(path: string): Promise<string> {
  const names = Object.keys(await import(new URL(`.${path}`, ROOT).href));
  return names.length === 0
    ? "export {};"
    : `import { ${nameOf(path)} as all } from "${LIBRARY}${partOf(path)}.js"; ` +
      `export const { ${names} } = all;`;
}

function partOf(path: string): "ranks" | "rest" {
  return NOT_FOR_RANKS.test(path) ? "rest" : "ranks";
}

/** The whole library, each module under a name of its own, in two parts and what they share. */
async function bundleLibrary(): Promise<ReadonlyMap<string, string>> {
  const paths = ["/mod.ts", ...await filesIn("/lib"), ...await filesIn("/kernels")];
  const own = paths.filter((path) => IS_LIBRARY.test(path) && !NOT_FOR_BROWSERS.test(path));
  const { ranks = [], rest = [] } = Object.groupBy(own, partOf);
  const lines = (paths: readonly string[]) =>
    paths.map((path) =>
      `export * as ${nameOf(path)} from ${JSON.stringify(new URL(`.${path}`, ROOT).href)};\n`
    ).join("");
  return await bundle({ ranks: lines(ranks), rest: lines(rest) });
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

/** Bundles modules, whose names are those of deno.json; returns the texts by the names of files. */
async function bundle(
  modules: Readonly<Record<string, string>>,
): Promise<ReadonlyMap<string, string>> {
  const folder = await Deno.makeTempDir({ prefix: "syncbn_browser_" });
  try {
    const sources = Object.entries(modules).map(([name, text]) => ({
      file: `${folder}/${name}.ts`,
      text,
    }));
    for (const { file, text } of sources) await Deno.writeTextFile(file, text);
    const config = fileURLToPath(new URL("deno.json", ROOT));
    const flags = ["--quiet", "--platform=browser", "--code-splitting", `--config=${config}`];
    const args = [
      ...["bundle", ...flags, `--outdir=${folder}/made`],
      ...sources.map(({ file }) => file),
    ];
    const { success, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    const texts = new Map<string, string>();
    for await (const { name } of Deno.readDir(`${folder}/made`)) {
      texts.set(name, await Deno.readTextFile(`${folder}/made/${name}`));
    }
    return texts;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
