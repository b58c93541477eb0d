/**
 * Serving the page on loopback, with the two headers by which its workers may share memory.
 *
 * @module
 */

import { startError } from "../start_error.ts";

/** Headers by which a page may share memory. */
export const ISOLATING = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
} as const;

const TYPES: Readonly<Record<string, string>> = {
  html: "text/html; charset=utf-8",
  css: "text/css; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  txt: "text/plain; charset=utf-8",
  bin: "application/octet-stream",
};

/**
 * Serves the files of a folder.
 *
 * @param folder where they are
 * @param names which there are: nothing else is served
 * @param port where to listen on 127.0.0.1; 0 for any
 * @param headers what each answer has besides its type
 * @returns the server
 * @throws a start error where the port is taken
 */
export function serveFiles(
  folder: string,
  names: readonly string[],
  port: number,
  headers: Readonly<Record<string, string>> = ISOLATING,
): Deno.HttpServer<Deno.NetAddr> {
  const answer = async ({ url }: Request): Promise<Response> => {
    const path = new URL(url).pathname.slice(1) || "index.html";
    if (!names.includes(path)) {
      return new Response("There is no such file", { status: 404, headers });
    }
    const type = TYPES[path.slice(path.lastIndexOf(".") + 1)];
    const body = await Deno.readFile(`${folder}/${path}`);
    const own = { ...headers, "content-type": type, "cache-control": "no-cache" };
    return new Response(body, { headers: own });
  };
  try {
    return Deno.serve({ hostname: "127.0.0.1", port, onListen: () => {} }, answer);
  } catch (cause) {
    if (!(cause instanceof Deno.errors.AddrInUse)) throw cause;
    throw startError(`--port must be free: ${port} is taken (0 is any)`, { cause });
  }
}
