/**
 * Shortens the waits for implementations that look for finished work only now and then: Firefox does so every 100 ms, and
 * whenever something is submitted (its bug 1870699). What others have is there before the first nudge, or takes the GPU as
 * long that a nudge does not matter.
 */

/** A readback that has taken this long is nudged, and then again at this pace, in ms. */
const PATIENCE_MS = 10;
const PACE_MS = 4;

/** Makes what waits for a promise of a queue, and nudges the queue while it is pending. */
export function createNudge(queue: GPUQueue): <T>(pending: Promise<T>) => Promise<T> {
  let waiting = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const nudge = (): void => {
    queue.submit([]);
    timer = setTimeout(nudge, PACE_MS);
  };
  return async (pending) => {
    if (waiting++ === 0) timer = setTimeout(nudge, PATIENCE_MS);
    try {
      return await pending;
    } finally {
      if (--waiting === 0) clearTimeout(timer);
    }
  };
}
