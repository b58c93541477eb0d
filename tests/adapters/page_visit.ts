/** A page of the adapters' tests in Chromium: bundled with the framework, served on loopback, heard once. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { openBrowser } from "../browser/browsers.ts";

/** A page that says nothing for this long hangs, in ms. */
const SILENCE_MS = 120_000;

/**
 * Opens a page that calls the export `main` of a module of this folder with the first of these packages, and hands on what that
 * resolves to. The page's script is written here, since its imports are in the lock of this folder alone.
 */
export async function visitPage<R>(module: string, packages: readonly string[]): Promise<R> {
  const [framework, ...others] = packages;
  const folder = await Deno.makeTempDir({ prefix: "syncbn_page_" });
  try {
    await Deno.writeTextFile(
      `${folder}/entry.js`,
      `
      import * as framework from ${JSON.stringify(framework)};
      ${others.map((other) => `import ${JSON.stringify(other)};`).join("")}
      import { main } from ${JSON.stringify(new URL(module, import.meta.url).href)};
      const report = await main(framework).catch((error) => String(error.stack));
      await fetch("/report", { method: "POST", body: JSON.stringify(report) });`,
    );
    const lock = `--lock=${fileURLToPath(new URL("adapters.lock", import.meta.url))}`;
    const output = `${folder}/page.js`;
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["bundle", lock, "--platform=browser", "--output", output, `${folder}/entry.js`],
    }).output();
    assert(success, new TextDecoder().decode(stderr));
    return await visitScript<R>(await Deno.readTextFile(output));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function visitScript<R>(script: string): Promise<R> {
  const { promise, resolve, reject } = Promise.withResolvers<R>();
  const page = `<!doctype html><meta charset="utf-8"><script>
    for (const what of ["error", "unhandledrejection"]) {
      addEventListener(what, ({ message, reason }) =>
        fetch("/report", { method: "POST", body: JSON.stringify(String(message ?? reason.stack)) }));
    }
  </script><script type="module" src="page.js"
    onerror='dispatchEvent(new ErrorEvent("error", { message: "the script cannot be loaded" }))'></script>`;
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    async (request) => {
      const { pathname } = new URL(request.url);
      const answer = (body: string, type: string) =>
        new Response(body, { headers: { "content-type": type } });
      if (pathname === "/report") {
        resolve(await request.json());
        return answer("", "text/plain");
      }
      if (pathname === "/page.js") return answer(script, "text/javascript");
      return pathname === "/" ? answer(page, "text/html") : new Response("", { status: 404 });
    },
  );
  const browser = await openBrowser("chromium", `http://127.0.0.1:${server.addr.port}/`);
  browser.ended.then((code) => reject(new Error(`chromium ended with code ${code}`)));
  const late = setTimeout(
    () => reject(new Error(`the page has said nothing for ${SILENCE_MS} ms`)),
    SILENCE_MS,
  );
  try {
    return await promise;
  } finally {
    clearTimeout(late);
    await browser.close();
    await server.shutdown();
  }
}
