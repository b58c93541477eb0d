import assert from "node:assert/strict";

const root = new URL("../", import.meta.url);

/** Every entry point of the package, as published. */
async function entryPoints(): Promise<string[]> {
  const config = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
  return Object.values<string>(config.exports);
}

Deno.test("every entry point can be imported over http from another folder, with no permission", async () => {
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    async (request) => {
      const { pathname } = new URL(request.url);
      if (!/^\/(mod\.ts|(lib|kernels)\/[\w/]+\.ts)$/.test(pathname)) {
        return new Response("not served", { status: 404 });
      }
      const source = await Deno.readTextFile(new URL(`.${pathname}`, root));
      return new Response(source, { headers: { "content-type": "application/typescript" } });
    },
  );
  const elsewhere = await Deno.makeTempDir();
  try {
    const host = `127.0.0.1:${server.addr.port}`;
    // One program, since what takes the time is to check the types of what all of them import.
    const entries = await entryPoints();
    const script = `
      ${
      entries.map((entry, i) =>
        `import * as library${i} from "${new URL(entry, `http://${host}/`)}";`
      )
        .join("\n      ")
    }
      import { batchNormForward, initBatchNorm, referenceDevice, tensor, toArray } from "http://${host}/mod.ts";
      const device = referenceDevice();
      const x = tensor(device, [1, 3], [2, 1]);
      const { output } = batchNormForward(initBatchNorm(device, 1, { eps: 0 }), x, { device });
      const libraries = [${entries.map((_, i) => `library${i}`).join(", ")}];
      console.log(...libraries.map((library) => Object.keys(library).length > 0));
      console.log(...await toArray(device, output));
    `;
    await Deno.writeTextFile(`${elsewhere}/main.ts`, script);
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      // --allow-import says where code may come from; the program itself is granted nothing.
      args: [
        "run",
        "--no-config",
        "--no-lock",
        "--no-prompt",
        "--check",
        `--allow-import=${host}`,
        "main.ts",
      ],
      cwd: elsewhere,
    }).output();
    const text = new TextDecoder();
    assert.equal(code, 0, text.decode(stderr));
    const lines = text.decode(stdout).trim().split("\n");
    assert.deepEqual(lines, [entries.map(() => "true").join(" "), "-1 1"]);
  } finally {
    await Deno.remove(elsewhere, { recursive: true });
    await server.shutdown();
  }
});

Deno.test("the core imports nothing but its own files", async () => {
  const pattern = /(?<!")\b(?:from|import)\s*\(?\s*"([^"]+)"/g;
  const seen = new Set<string>();
  const pending = (await entryPoints()).map((entry) => new URL(entry, root).href);
  for (let file = pending.pop(); file !== undefined; file = pending.pop()) {
    if (seen.has(file)) continue;
    seen.add(file);
    const source = (await Deno.readTextFile(new URL(file))).replace(/^\s*\*.*$/gm, "");
    for (const [, specifier] of source.matchAll(pattern)) {
      assert.match(specifier, /^\.\.?\//, `${file} imports ${specifier}`);
      pending.push(new URL(specifier, file).href);
    }
  }
  assert(seen.size > 10);
});
