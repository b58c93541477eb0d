/** What threads that work together ask of the platform, found out by trying. */

import { builtIn } from "./node.ts";

/** Tells whether memory can be shared with workers: on isolated pages of browsers (COOP and COEP), else everywhere. */
export function sharesMemory(): boolean {
  const { crossOriginIsolated } = globalThis as { readonly crossOriginIsolated?: boolean };
  return typeof SharedArrayBuffer === "function" && crossOriginIsolated !== false;
}

/** Tells whether this thread may block in `Atomics.wait`: not a browser's main thread nor its service workers. */
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

/** Says how many cores there are, or 1 where the platform does not. */
export function coreCount(): number {
  type System = { readonly availableParallelism: () => number };
  return globalThis.navigator?.hardwareConcurrency ??
    builtIn<System>("node:os")?.availableParallelism() ?? 1; // Node 20 has no navigator.
}
