/** A real browser for tests: bundles scripts, serves a page with them, and waits for what the page sends home. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { demanded } from "./demanded.ts";

const SECONDS = 60;
/** Headers by which a page may share memory. */
export const ISOLATING = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
};

/** Whether there is a Chromium, or the run promises one. */
export async function hasChromium(): Promise<boolean> {
  if (demanded("chromium")) return true;
  try {
    return (await new Deno.Command("chromium", { args: ["--version"] }).output()).success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Bundles a script of `browser/` for browsers. */
async function bundle(name: string, folder: string): Promise<void> {
  const source = fileURLToPath(new URL(`./browser/${name}.ts`, import.meta.url));
  const args = ["bundle", "--platform=browser", "--output", `${folder}/${name}.js`, source];
  const { success, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  assert(success, new TextDecoder().decode(stderr));
}

/** Opens a page with the first script in a browser of its own, and waits for its report. */
async function visit<R>(
  folder: string,
  scripts: readonly string[],
  headers: Record<string, string>,
): Promise<R> {
  const { promise, resolve, reject } = Promise.withResolvers<R>();
  const answer = async (request: Request): Promise<Response> => {
    const { pathname } = new URL(request.url);
    if (pathname === "/report") {
      resolve(await request.json());
      return new Response("", { headers });
    }
    if (pathname === "/") {
      const page = `<!doctype html><script type="module" src="${scripts[0]}.js"></script>`;
      return new Response(page, { headers: { ...headers, "content-type": "text/html" } });
    }
    if (!scripts.some((name) => pathname === `/${name}.js`)) {
      return new Response("", { status: 404 });
    }
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

/**
 * Opens a page of scripts in a browser once per set of headers.
 *
 * @param scripts names of modules in `browser/`; the first one is the page's
 * @param each headers of the page and its scripts
 * @returns what the page sent home, per set of headers
 */
export async function visits<R>(
  scripts: readonly string[],
  each: readonly Record<string, string>[],
): Promise<R[]> {
  const folder = await Deno.makeTempDir({ prefix: "syncbn_browser_" });
  try {
    await Promise.all(scripts.map((name) => bundle(name, folder)));
    const reports: R[] = [];
    for (const headers of each) reports.push(await visit<R>(folder, scripts, headers));
    return reports;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
