/**
 * Shortens the waits for implementations that look for finished work only now and then: Firefox does so every 100 ms, and
 * whenever something is submitted (its bug 1870699). What others have is there before the first nudge, or takes the GPU as
 * long that a nudge does not matter.
 */

/** A readback that has taken this long is nudged, in ms. */
const PATIENCE_MS = 10;
/** Then again each quarter of the time that the latest has taken so far: the longer the GPU computes, the less it is asked. */
const PACE = 1 / 4;
const LEAST_PACE_MS = 4;

/** Makes what waits for a promise of a queue, and nudges the queue while it is pending. */
export function createNudge(queue: GPUQueue): <T>(pending: Promise<T>) => Promise<T> {
  let waiting = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let since = 0;
  const nudge = (): void => {
    queue.submit([]);
    timer = setTimeout(nudge, Math.max(LEAST_PACE_MS, PACE * (performance.now() - since)));
  };
  return async (pending) => {
    since = performance.now();
    if (waiting++ === 0) timer = setTimeout(nudge, PATIENCE_MS);
    try {
      return await pending;
    } finally {
      if (--waiting === 0) clearTimeout(timer);
    }
  };
}
