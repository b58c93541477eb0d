/** The page's hosts in Chromium: the task that serves it, any other host, and plain http. Part of `deno task test:page`. */

import assert from "node:assert/strict";
import { ISOLATING } from "../../examples/browser/serve.ts";
import { asPerson } from "./person.ts";
import { ignore, served, SHORT } from "./served.ts";

Deno.test({
  name:
    "page: what --build writes is all that a host without headers needs, in a folder of its own",
  ignore,
  fn: async () => {
    const { code, stdout, stderr } = await task("--build").output();
    assert.deepEqual([code, decode(stderr)], [0, ""]);
    assert.match(decode(stdout), /out\/page: index\.html, /);
    const host = await Deno.makeTempDir({ prefix: "syncbn_page_host_" });
    await Deno.mkdir(`${host}/some/where`, { recursive: true });
    for await (const { name } of Deno.readDir("out/page")) {
      await Deno.copyFile(`out/page/${name}`, `${host}/some/where/${name}`);
    }
    const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, plain(host));
    try {
      await asPerson(async (person) => {
        await person.open(`http://127.0.0.1:${server.addr.port}/some/where/?${SHORT}`);
        assert.equal(await person.value("crossOriginIsolated"), true, "a service worker isolates");
        assert.equal(await person.value(`document.getElementById("notes").hidden`), true);
        await person.click("train");
        await person.sees("sync-distance", /^\d\.\d × 10⁻[⁶⁷⁸]$/);
      });
    } finally {
      await server.shutdown();
      await Deno.remove(host, { recursive: true });
    }
  },
});

Deno.test({
  name: "page: its task serves it with the two headers, and says which port is taken",
  ignore,
  fn: async () => {
    const server = task("--port", "0").spawn();
    const lines = server.stdout.pipeThrough(new TextDecoderStream()).getReader();
    try {
      const { value: line = "" } = await lines.read();
      const [, address] =
        /^(http:\/\/127\.0\.0\.1:\d+\/) shows the page; Ctrl-C ends it$/m.exec(line) ??
          [];
      assert(address, line);
      for (
        const [path, status, type] of [
          ["", 200, "text/html; charset=utf-8"],
          ["rank.js?any", 200, "text/javascript; charset=utf-8"],
          ["deno.json", 404, "text/plain;charset=UTF-8"],
        ] as const
      ) {
        const answer = await fetch(address + path);
        await answer.body?.cancel();
        const own = Object.keys(ISOLATING).map((name) => answer.headers.get(name));
        assert.deepEqual([answer.status, ...own], [status, ...Object.values(ISOLATING)], path);
        assert.equal(answer.headers.get("content-type"), type, path);
      }
      const { port } = new URL(address);
      const second = await task("--port", port).output();
      assert.deepEqual([second.code, decode(second.stdout)], [2, ""]);
      assert.equal(
        decode(second.stderr),
        `Cannot show the page as --port must be free: ${port} is taken (0 is any)\n`,
      );
    } finally {
      server.kill("SIGTERM");
      await Promise.all([lines.cancel(), server.stderr.cancel(), server.status]);
    }
  },
});

Deno.test({
  name:
    "page: by plain http there is no WebGPU and no isolation: it says so, and trains by messages",
  ignore,
  fn: () =>
    served(async (address) => {
      const { port } = new URL(address);
      const there = `http://somewhere.test:${port}/`;
      await asPerson(async (person) => {
        await person.open(`${there}?${SHORT}`);
        assert.deepEqual(await person.value("[isSecureContext, crossOriginIsolated]"), [
          false,
          false,
        ]);
        const notes = await person.text("notes");
        assert.match(notes, /^Browsers give WebGPU to pages by https alone, .*, by Wasm SIMD\./);
        assert.match(notes, /This page is not isolated .* send each other messages/);
        await person.click("train");
        await person.sees("sync-distance", /^\d\.\d × 10⁻[⁶⁷⁸]$/);
        assert.match(
          await person.text("host-device"),
          /^3 × Wasm SIMD .*, as this runtime has no WebGPU\.$/,
        );

        await person.open(`${there}?${SHORT}&device=webgpu`);
        await person.click("train");
        await person.sees("status", /failed: WebGPU must find an adapter: there is none\. Choose/);
      }, ["--host-resolver-rules=MAP somewhere.test 127.0.0.1"]);
    }, {}),
});

/** The task as Deno starts it. */
function task(...flags: string[]): Deno.Command {
  const { tasks } = JSON.parse(Deno.readTextFileSync("deno.json"));
  const [, ...args] = tasks["page:browser"].command.split(" ");
  const env = { NO_COLOR: "1" };
  return new Deno.Command(Deno.execPath(), {
    ...{ args: [...args, ...flags], env, stdin: "null", stdout: "piped", stderr: "piped" },
  });
}

function decode(bytes: Uint8Array<ArrayBuffer>): string {
  return new TextDecoder().decode(bytes);
}

/** A host that knows nothing of the page: it sends files by their names, and no headers but their types. */
function plain(root: string): (request: Request) => Promise<Response> {
  const types: Record<string, string> = {
    html: "text/html",
    js: "text/javascript",
    css: "text/css",
  };
  return async ({ url }) => {
    const { pathname } = new URL(url);
    const path = pathname.endsWith("/") ? `${pathname}index.html` : pathname;
    const body = await Deno.readFile(root + path).catch(() => null);
    const type = types[path.slice(path.lastIndexOf(".") + 1)];
    return body
      ? new Response(body, { headers: type ? { "content-type": type } : {} })
      : new Response("", { status: 404 });
  };
}
