/** The page, built once for the tests of a file, and served as a host does. */

import { buildPage } from "../../examples/browser/build.ts";
import { ISOLATING, serveFiles } from "../../examples/browser/serve.ts";
import { hasBrowser } from "../browser/browsers.ts";

/** Whether there is no Chromium here; an error where the run promises it. */
export const ignore = !await hasBrowser("chromium");
/** 45 steps. */
export const SHORT = "replicas=2&images=16&epochs=1";

const folder = await Deno.makeTempDir({ prefix: "syncbn_page_test_" });
globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
const names = ignore ? [] : await buildPage(folder);

/** Serves the built page, as a host would that sends these headers. */
export async function served(
  body: (address: string) => Promise<void>,
  headers: Readonly<Record<string, string>> = ISOLATING,
): Promise<void> {
  const server = serveFiles(folder, names, 0, headers);
  try {
    await body(`http://127.0.0.1:${server.addr.port}/`);
  } finally {
    await server.shutdown();
  }
}
