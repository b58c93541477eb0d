/** The ways into a program of Deno that the README names; package_test.ts has those of Node, bundlers and TypeScript. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { fullTests } from "../tier.ts";

const test = fullTests("install");

const root = new URL("../../", import.meta.url);
const PROGRAM = `
import { batchNormForward, initBatchNorm, tensor, toArray } from "@syncbn/syncbn";
import { wasmDevice } from "@syncbn/syncbn/wasm";
const device = await wasmDevice();
const x = tensor(device, [1, 3], [2, 1]);
const { output } = batchNormForward(initBatchNorm(device, 1, { eps: 0 }), x, { device });
console.log(...await toArray(device, output));
`;

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(command: string, args: string[], cwd: string, env = {}): Promise<Ran> {
  const child = new Deno.Command(command, { args, cwd, env: { ...env, NO_COLOR: "1" } });
  const { code, stdout, stderr } = await child.output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout).trim(), stderr: text.decode(stderr) };
}

/** Gives a body a folder that is gone afterwards. */
async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "syncbn_install_" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Runs the program with the README's import map, from a host that says what its files are. */
async function imported(contentType: string | null): Promise<Ran> {
  const readme = await Deno.readTextFile(new URL("README.md", root));
  const [, map] = /^```json\n(.*?)^```$/ms.exec(readme) ?? [];
  assert(map.includes("https://your.host/syncbn/0.1.0/mod.ts"));
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    async (request) => {
      const { pathname } = new URL(request.url);
      if (!/^\/(mod\.ts|(lib|kernels)\/[\w/]+\.ts)$/.test(pathname)) {
        return new Response("not served", { status: 404 });
      }
      const headers = new Headers(contentType === null ? {} : { "content-type": contentType });
      return new Response(await Deno.readFile(new URL(`.${pathname}`, root)), { headers });
    },
  );
  let ran: Ran | undefined;
  try {
    await inFolder(async (folder) => {
      const host = `127.0.0.1:${server.addr.port}`;
      const config = map.replaceAll("https://your.host/syncbn/0.1.0", `http://${host}`);
      await Deno.writeTextFile(`${folder}/deno.json`, config);
      await Deno.writeTextFile(`${folder}/main.ts`, PROGRAM);
      const args = ["run", "--no-prompt", "--no-lock", `--allow-import=${host}`, "main.ts"];
      ran = await run(Deno.execPath(), args, folder, { DENO_DIR: `${folder}/cache` });
    });
  } finally {
    await server.shutdown();
  }
  assert(ran);
  return ran;
}

for (
  const type of [
    "application/typescript",
    "text/plain",
    "application/octet-stream",
    "video/mp2t",
    null,
  ]
) {
  test(`by URL and import map, from a host that calls TypeScript ${type ?? "nothing"}`, async () => {
    const { code, stdout, stderr } = await imported(type);
    assert.equal(code, 0, stderr);
    assert.equal(stdout, "-1 1");
  });
}

for (
  const [type, refusal] of [
    ["text/vnd.trolltech.linguist", /Expected a JavaScript or TypeScript module/],
    ["text/javascript", /SyntaxError/],
  ] as const
) {
  test(`Deno refuses TypeScript that its host calls ${type}`, async () => {
    const { code, stderr } = await imported(type);
    assert.equal(code, 1);
    assert.match(stderr, refusal);
  });
}

test("by links to a clone", async () => {
  await inFolder(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/deno.json`,
      JSON.stringify({ links: [fileURLToPath(root)] }),
    );
    await Deno.writeTextFile(`${folder}/main.ts`, PROGRAM);
    const args = ["run", "--no-prompt", "--check", "main.ts"];
    const { code, stdout, stderr } = await run(Deno.execPath(), args, folder);
    assert.equal(code, 0, stderr);
    assert.equal(stdout, "-1 1");
  });
});
