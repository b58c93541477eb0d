/**
 * What a team of threads asks of the thread that calls it, found out by trying.
 *
 * @module
 */

/**
 * Tells whether memory can be shared with workers: browsers allow it on pages that are isolated (COOP and COEP headers),
 * Deno and Node everywhere.
 *
 * @returns whether a team of more than one thread has a memory to work on
 */
export function sharesMemory(): boolean {
  const { crossOriginIsolated } = globalThis as { readonly crossOriginIsolated?: boolean };
  return typeof SharedArrayBuffer === "function" && crossOriginIsolated !== false;
}

/**
 * Says why a team has one thread here, whatever is asked for.
 *
 * @returns a clause, or null where it may have more
 */
export function whyOneThread(): string | null {
  if (!sharesMemory()) {
    return "threads may not share memory: serve the page with Cross-Origin-Opener-Policy: same-origin and " +
      "Cross-Origin-Embedder-Policy: require-corp";
  }
  if (!mayBlock()) return "this thread may not wait: open the device in a worker";
  return null;
}

/**
 * Tells whether this thread may block in `Atomics.wait`: all may but a browser's main thread and its service workers.
 *
 * @returns whether a team of more than one thread can be called from here
 */
export function mayBlock(): boolean {
  if (typeof SharedArrayBuffer !== "function") return false;
  try {
    // Another value than the one that is there: returns at once where it is allowed.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1, 0);
    return true;
  } catch {
    return false;
  }
}
