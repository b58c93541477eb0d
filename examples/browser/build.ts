/**
 * Building the page: static files that any host can serve.
 *
 * @module
 */

import { fileURLToPath } from "node:url";

const HERE = new URL("./", import.meta.url);
const LOCK = fileURLToPath(new URL("page.lock", HERE));
const CONFIG = new URL("../../deno.json", HERE);
/** The one package that the demo's own modules need. */
const NEEDED = "pure-rand";

const OWN = ["--no-config", `--lock=${LOCK}`, "--frozen"];

/** Packages of npm that the page has and the project's own lock does not: named here, so that no checked module has them. */
const UPLOT = "npm:uplot@1.6.32";

const PAGE = `
import uPlot from "${UPLOT}";
import { startPage } from ${JSON.stringify(new URL("page/page.ts", HERE).href)};
const near = (name) => new URL(name, import.meta.url);
await startPage({
  uPlot,
  rank: near("./rank.js"),
  isolation: near("./isolation.js"),
  digits: near("./digits.bin"),
});
`;
/** The style sheet comes from where the code does. */
const STYLES = `
import css from "${UPLOT}/dist/uPlot.min.css" with { type: "text" };
console.log(css);
`;

/** All files of the page. */
const FILES = [
  ...[
    "index.html",
    "style.css",
    "picture.css",
    "uplot.css",
    "page.js",
    "rank.js",
    "isolation.js",
    "digits.bin",
  ],
  "licences.txt",
];

/**
 * Builds the page.
 *
 * @param folder where to; what is there under the same names is replaced
 * @returns the names of its files
 */
export async function buildPage(folder: string): Promise<readonly string[]> {
  await Deno.mkdir(folder, { recursive: true });
  const work = await Deno.makeTempDir({ prefix: "syncbn_page_" });
  try {
    await Deno.writeTextFile(`${work}/page.js`, PAGE);
    const needed = await versionOf(NEEDED);
    await Deno.writeTextFile(`${work}/styles.js`, STYLES);
    const source = (name: string) => fileURLToPath(new URL(`page/${name}`, HERE));
    // In place of the project's configuration, which would have its whole lock fetched.
    const imports = { [`${NEEDED}/`]: `${needed.replace(":", ":/")}/` };
    const map = `${work}/imports.json`;
    await Deno.writeTextFile(map, JSON.stringify({ imports }));
    await bundle(`${work}/page.js`, `${folder}/page.js`, map);
    await bundle(source("rank.ts"), `${folder}/rank.js`, map);
    await bundle(source("isolation_worker.ts"), `${folder}/isolation.js`, map);
    const css = await deno("run", "--quiet", ...OWN, `${work}/styles.js`);
    await Deno.writeTextFile(`${folder}/uplot.css`, css);
    for (const name of ["index.html", "style.css", "picture.css", "licences.txt"]) {
      await Deno.copyFile(source(name), `${folder}/${name}`);
    }
    // Under a name of which no host thinks that browsers are to unpack it.
    await Deno.copyFile(new URL("../digits.bin.gz", HERE), `${folder}/digits.bin`);
  } finally {
    await Deno.remove(work, { recursive: true });
  }
  return FILES;
}

/** What the project's configuration says of a package. */
async function versionOf(name: string): Promise<string> {
  return JSON.parse(await Deno.readTextFile(CONFIG)).imports[name];
}

async function bundle(source: string, output: string, map: string): Promise<void> {
  const flags = ["--quiet", "--platform=browser", "--minify", ...OWN, `--import-map=${map}`];
  await deno("bundle", ...flags, `--output=${output}`, source);
}

/** What a command of Deno prints. */
async function deno(...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  const text = new TextDecoder();
  if (!success) {
    throw new Error(
      `Cannot build the page as deno ${args[0]} must succeed: ${text.decode(stderr)}`,
    );
  }
  return text.decode(stdout);
}
