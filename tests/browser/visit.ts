/** A visit to a page: serves it on loopback, shows it in a browser, and hands on what the page sends home. */

import type { Said, Told } from "./inside/told.ts";
import type { Served } from "./modules.ts";
import type { Window } from "./window.ts";

/** Headers by which a page may share memory. */
export const ISOLATING = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
} as const;

/** What is visited, and how. */
export interface Visit {
  /** Which modules of entries/ register the tests. */
  readonly entries: readonly string[];
  /** Whether it runs on the page itself or in a worker. */
  readonly where: "page" | "worker";
  /** Whether the page may share memory; false by default. */
  readonly isolated?: boolean;
  /** A Content-Security-Policy of the page and its workers. */
  readonly policy?: string;
  /** Only tests whose names hold this text. */
  readonly filter?: string;
}

/** A page that says nothing for this long hangs, in ms. */
const SILENCE_MS = 90_000;

/**
 * Makes a visit.
 *
 * @returns what the page tells, as it comes; throws where the browser ends by itself, or the page falls silent
 */
export async function* visit(
  window: Window,
  { entries, where, isolated = false, policy, filter = "" }: Visit,
  modules: (path: string) => Promise<Served | null>,
): AsyncGenerator<Told> {
  const told: Told[] = [];
  let wake = () => {};
  let over: Error | "done" | null = null;
  const end = (how: Error | "done"): void => {
    over ??= how;
    wake();
  };
  const left = Promise.withResolvers<void>();
  const hear = (said: Said): void => {
    if (said.kind === "done") return end("done");
    if (said.kind === "broken") return end(new Error(said.reason));
    told.push(said);
    wake();
  };
  const headers: Record<string, string> = {
    ...(isolated ? ISOLATING : {}),
    ...(policy === undefined ? {} : { "content-security-policy": policy }),
    // Each worker loads the same modules again.
    "cache-control": "max-age=3600",
  };
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    async (from) => {
      const { pathname } = new URL(from.url);
      const answer = (body: Served["body"], type: string) =>
        new Response(body, { headers: { ...headers, "content-type": type } });
      if (from.method === "POST") {
        (await from.json() as Said[]).forEach(hear);
        return answer("", "text/plain");
      }
      if (pathname === "/") return answer(PAGE, "text/html");
      if (pathname === "/over") return left.promise.then(() => answer(window.door, "text/plain"));
      const served = await modules(pathname);
      return served ? answer(served.body, served.type) : new Response("", { status: 404, headers });
    },
  );
  const query = new URLSearchParams({ entries: `${entries}`, where, filter });
  let last = "it was opened";
  try {
    const { ended } = await window.show(`http://127.0.0.1:${server.addr.port}/?${query}`);
    ended.then((code) => end(new Error(`the browser ended with code ${code}`)));
    for (;;) {
      for (let next = told.shift(); next; next = told.shift()) {
        last = `"${next.name}"`;
        yield next;
      }
      if (over === "done") return;
      if (over) throw over;
      await new Promise<void>((resolve, reject) => {
        const silent = new Error(`the page has said nothing for ${SILENCE_MS} ms, after ${last}`);
        const late = setTimeout(() => reject(silent), SILENCE_MS);
        wake = () => {
          clearTimeout(late);
          resolve();
        };
        if (told.length > 0 || over) wake();
      });
    }
  } finally {
    left.resolve();
    await window.back();
    await server.shutdown();
  }
}

const PAGE = `<!doctype html><meta charset="utf-8"><title>syncbn</title>
<link rel="icon" href="data:,"><script type="module" src="/tests/browser/inside/page.ts"></script>`;
