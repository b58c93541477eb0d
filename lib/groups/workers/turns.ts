/**
 * Turns of the event loop: where every wait is over at once, nothing but microtasks would ever run, and timers, messages
 * and whatever else a thread has to do would starve.
 *
 * @module
 */

/** How long microtasks may have a thread to themselves, in ms. */
const LONGEST_MS = 50;

/** Gives way every now and then. */
export interface Turns {
  /** Resolves after a turn of the event loop where one is due; undefined where none is. */
  readonly due: () => Promise<void> | undefined;
}

/** Begins to count. */
export function countTurns(): Turns {
  let last = performance.now();
  return {
    due: () => {
      if (performance.now() - last < LONGEST_MS) return;
      return nextTurn().then(() => {
        last = performance.now();
      });
    },
  };
}

/** A turn takes microseconds by setImmediate or a message, and milliseconds by a timer. */
function nextTurn(): Promise<void> {
  const { setImmediate } = globalThis as { setImmediate?: (callback: () => void) => unknown };
  return new Promise((resolve) => {
    if (setImmediate) return void setImmediate(resolve);
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
