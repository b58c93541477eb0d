/**
 * Turns of the event loop: where every wait is over at once, nothing but microtasks would ever run, and timers, messages
 * and whatever else a thread has to do would starve.
 *
 * @module
 */

/** How long microtasks may have a thread to themselves, in ms; a turn takes one to four. */
const LONGEST_MS = 100;

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

/** By a timer: Deno's setImmediate comes around without a look at what other threads have sent. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
