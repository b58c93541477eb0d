/** The npm package in an empty folder: Node, TypeScript, bundlers whose pages run in Chromium, and those who judge packages. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { pack } from "../../package/pack.ts";
import { hasBrowser, openBrowser } from "../browser/browsers.ts";
import { has, inFolder, install, link, nodePackages, run, succeed } from "../node/node.ts";
import { isRun } from "../tier.ts";

const ROOT = new URL("../../", import.meta.url);
const PROGRAM = new URL("../package/program/", import.meta.url);
/** Bundlers whose pages are run, and how each builds them. */
const BUNDLERS: Readonly<Record<string, readonly string[]>> = {
  esbuild: [
    "../tools/node_modules/esbuild/bin/esbuild",
    ...[
      "page.js",
      "rank.js",
      "--bundle",
      "--format=esm",
      "--target=es2022",
      "--outdir=site/esbuild",
    ],
  ],
  webpack: ["../tools/webpack.js"],
  vite: ["../node_modules/vite/bin/vite.js", "build", "--outDir", "site/vite"],
};
const TOOLS = {
  ...{ esbuild: "0.28.2", webpack: "5.113.0", publint: "0.3.25" },
  "@arethetypeswrong/cli": "0.18.5",
  typescript5: "npm:typescript@5.9.3",
  typescript6: "npm:typescript@6.0.3",
  typescript7: "npm:typescript@7.0.2",
};
/** What npm installs beside the package: its peer, and a bundler that Deno cannot install, as a dependency of it is gone. */
const BESIDE = { "@webgpu/types": "0.1.74", vite: "8.4.0" };
const LARGEST_BYTES = 300_000;

/** What a program of the package comes to. */
interface Result {
  readonly ranks: readonly { readonly threads: number; readonly numbers: readonly number[] }[];
  /** Of one rank with the whole batch, where the thread may wait for others. */
  readonly alone: readonly number[] | null;
  readonly error?: string;
}

/** The entry points, as deno.json has them. */
async function entryPoints(): Promise<readonly string[]> {
  const { name, exports } = JSON.parse(await Deno.readTextFile(new URL("deno.json", ROOT)));
  return Object.keys(exports).map((entry) => name + entry.slice(1));
}

async function checkTarball(tarball: string): Promise<void> {
  const { size } = await Deno.stat(tarball);
  assert(size < LARGEST_BYTES, `the package has ${size} bytes`);
  const files = (await succeed("tar", ["-tzf", tarball], ".")).split("\n");
  const allowed = /\/$|\.(js|d\.ts)$|^package\/(package\.json|README\.md|CHANGELOG\.md|LICENSE)$/;
  assert.deepEqual(files.filter((file) => !allowed.test(file)), []);
}

/** Every entry point in strict TypeScript, without a `lib` that the package itself does not ask for. */
async function checkTypes(folder: string, typescript: string): Promise<void> {
  const types = `${folder}/${typescript}`;
  await Deno.mkdir(types);
  const lines = (await entryPoints()).map((entry, i) => `export * as e${i} from "${entry}";\n`);
  await Deno.writeTextFile(`${types}/main.ts`, lines.join(""));
  await Deno.writeTextFile(
    `${types}/tsconfig.json`,
    JSON.stringify({
      compilerOptions: {
        ...{ strict: true, target: "ES2022", lib: ["ES2022", "DOM"], noEmit: true },
        ...{ module: "NodeNext", moduleResolution: "NodeNext", exactOptionalPropertyTypes: true },
        // What declares the language and the DOM is TypeScript's own, and takes longest.
        skipDefaultLibCheck: true,
        // The first that declares WebGPU itself is 6.
        types: typescript === "typescript5" ? ["@webgpu/types"] : [],
      },
      files: ["main.ts"],
    }),
  );
  await succeed("node", [`tools/node_modules/${typescript}/bin/tsc`, "-p", types], folder);
}

/** Checks that ranks on two threads each came to what one rank comes to. */
function checkLaw({ ranks, error }: Result, alone: readonly number[]): void {
  assert.equal(error, undefined);
  assert.deepEqual(ranks.map(({ threads }) => threads), [2, 2]);
  assert.deepEqual(ranks[0].numbers, ranks[1].numbers);
  ranks[0].numbers.forEach((value, i) => assert(Math.abs(value - alone[i]) < 1e-5));
}

/** Visits one page after the other in Chromium, isolated, and returns what they sent home. */
async function visit(folder: string, pages: readonly string[]): Promise<readonly Result[]> {
  const results: Result[] = [];
  let done = () => {};
  const all = new Promise<void>((resolve) => done = resolve);
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    async (request) => {
      const headers: Record<string, string> = {
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-embedder-policy": "require-corp",
      };
      const { pathname } = new URL(request.url);
      if (pathname === "/report") {
        results.push(await request.json());
        if (results.length === pages.length) done();
        return new Response(pages[results.length] ?? "", { headers });
      }
      const type = pathname.endsWith(".js") ? "text/javascript" : "text/html";
      const file = await Deno.readFile(folder + pathname).catch(() => null);
      if (file === null) return new Response("", { status: 404, headers });
      return new Response(file, { headers: { ...headers, "content-type": type } });
    },
  );
  const address = `http://127.0.0.1:${server.addr.port}${pages[0]}`;
  const browser = await openBrowser("chromium", address);
  const late = setTimeout(done, 60_000);
  try {
    await all;
  } finally {
    clearTimeout(late);
    await browser.close();
    await server.shutdown();
  }
  assert.equal(results.length, pages.length, "pages that sent a report within a minute");
  return results;
}

async function testPackage(t: Deno.TestContext, folder: string): Promise<void> {
  const tarball = `${folder}/syncbn.tgz`;
  const program = `${folder}/program`;
  await t.step("is JavaScript and types, under 310 KB", async () => {
    await pack(tarball);
    await checkTarball(tarball);
  });
  const tools = `${folder}/tools`;
  await Deno.mkdir(tools);
  await link(tools, { ...nodePackages(), ...TOOLS });
  await install(folder, { "@syncbn/syncbn": `file:${tarball}`, ...BESIDE });
  await succeed("cp", ["-r", fileURLToPath(PROGRAM), program], folder);
  await Deno.rename(`${program}/webpack.js`, `${tools}/webpack.js`);
  let alone: readonly number[] = [];
  for (const name of Object.keys(nodePackages())) {
    await t.step(`trains two ranks on two threads each in ${name}`, async () => {
      const node = `${tools}/node_modules/${name}/bin/node`;
      const result: Result = JSON.parse(await succeed(node, ["node.js"], program));
      alone = result.alone!;
      checkLaw(result, alone);
    });
  }
  await t.step("is built by esbuild, webpack and Vite", async () => {
    await Promise.all(Object.values(BUNDLERS).map((args) => succeed("node", args, program)));
    for (const bundler of ["esbuild", "webpack"]) { // Vite writes the page itself.
      await Deno.copyFile(`${program}/index.html`, `${program}/site/${bundler}/index.html`);
    }
  });
  await t.step(
    "trains two ranks on two threads each in Chromium, however it was built",
    async () => {
      const pages = Object.keys(BUNDLERS).map((bundler) => `/${bundler}/index.html`);
      for (const result of await visit(`${program}/site`, pages)) checkLaw(result, alone);
    },
  );
  await t.step("has types for TypeScript 5, 6 and 7, all of them checked", async () => {
    const compilers = Object.keys(TOOLS).filter((name) => name.startsWith("typescript"));
    await Promise.all(compilers.map((typescript) => checkTypes(folder, typescript)));
  });
  await t.step("has nothing that publint finds", async () => {
    const cli = "tools/node_modules/publint/src/cli.js";
    const args = [cli, "--strict", "node_modules/@syncbn/syncbn"];
    assert.match(await succeed("node", args, folder), /All good!/);
  });
  await t.step("has no wrong types, by @arethetypeswrong/cli", async () => {
    const cli = "tools/node_modules/@arethetypeswrong/cli/dist/index.js";
    const { code, stdout } = await run("node", [cli, tarball, "--profile", "esm-only"], folder);
    assert.equal(code, 0, stdout);
  });
}

if (isRun("full")) {
  const missing = !(await has("npm") && await hasBrowser("chromium"));
  Deno.test({
    name: "package: the npm package in an empty folder",
    ignore: missing,
    fn: (t) => inFolder((folder) => testPackage(t, folder)),
  });
} else Deno.test.ignore("package: 1 test left to the full tier", () => {});
