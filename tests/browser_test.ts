/** Groups of workers in a real browser, on a page that may share memory and on one that may not. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { demanded } from "./demanded.ts";
import type { Report } from "./browser/page.ts";

const SECONDS = 60;
const ISOLATING = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
};

async function hasChromium(): Promise<boolean> {
  if (demanded("chromium")) return true;
  try {
    return (await new Deno.Command("chromium", { args: ["--version"] }).output()).success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function bundle(name: string, folder: string): Promise<void> {
  const source = fileURLToPath(new URL(`./browser/${name}.ts`, import.meta.url));
  const args = ["bundle", "--platform=browser", "--output", `${folder}/${name}.js`, source];
  const { success, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  assert(success, new TextDecoder().decode(stderr));
}

/** Opens the page in a browser of its own, and waits for its report. */
async function visit(folder: string, headers: Record<string, string>): Promise<Report> {
  const { promise, resolve, reject } = Promise.withResolvers<Report>();
  const answer = async (request: Request): Promise<Response> => {
    const { pathname } = new URL(request.url);
    if (pathname === "/report") {
      resolve(await request.json());
      return new Response("", { headers });
    }
    if (pathname === "/") {
      const page = `<!doctype html><script type="module" src="page.js"></script>`;
      return new Response(page, { headers: { ...headers, "content-type": "text/html" } });
    }
    if (!/^\/(page|rank)\.js$/.test(pathname)) return new Response("", { status: 404 });
    const script = await Deno.readTextFile(`${folder}${pathname}`);
    return new Response(script, { headers: { ...headers, "content-type": "text/javascript" } });
  };
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, answer);
  const profile = await Deno.makeTempDir({ prefix: "syncbn_browser_" });
  const browser = new Deno.Command("chromium", {
    args: [
      ...["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"],
      ...[`--user-data-dir=${profile}`, `http://127.0.0.1:${server.addr.port}/`],
    ],
    stdout: "null",
    stderr: "null",
  }).spawn();
  const late = setTimeout(
    () => reject(new Error(`the page sent no report within ${SECONDS} s`)),
    1000 * SECONDS,
  );
  try {
    return await promise;
  } finally {
    clearTimeout(late);
    browser.kill();
    await browser.status;
    await server.shutdown();
    await removeSoon(profile);
  }
}

/** Removes a profile that the browser's helpers may still be writing to for a moment. */
async function removeSoon(folder: string): Promise<void> {
  for (let tries = 50;; tries--) {
    try {
      return await Deno.remove(folder, { recursive: true });
    } catch (error) {
      if (tries === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

Deno.test({
  name: "workers in a browser meet over shared memory where the page may, over ports elsewhere",
  ignore: !(await hasChromium()),
  fn: async () => {
    const folder = await Deno.makeTempDir({ prefix: "syncbn_browser_" });
    try {
      await Promise.all(["page", "rank"].map((name) => bundle(name, folder)));
      const told = [4, 2, 4].map((half) => ({ total: 6, half, late: "deadline 1" }));
      assert.deepEqual(await visit(folder, ISOLATING), {
        isolated: true,
        ways: { auto: told, port: told, block: told },
      });
      assert.deepEqual(await visit(folder, {}), {
        isolated: false,
        ways: {
          auto: told,
          port: told,
          block: `Cannot join the group as wait "block" needs shared memory: this seat has a port`,
        },
      });
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
