/**
 * Turns of the event loop: where every wait is over at once, nothing but microtasks would ever run, and timers, messages
 * and whatever else a thread has to do would starve.
 *
 * @module
 */

/** Gives way every now and then. */
export interface Turns {
  /** Resolves after a turn of the event loop where one is due; undefined where none is. */
  readonly due: () => Promise<void> | undefined;
}

/**
 * Begins to count.
 *
 * @param longestMs how long microtasks may have a thread to themselves
 * @param turn how a turn is given
 */
export function countTurns(longestMs: number, turn: () => Promise<void>): Turns {
  let last = performance.now();
  return {
    due: () => {
      if (performance.now() - last < longestMs) return;
      return turn().then(() => {
        last = performance.now();
      });
    },
  };
}

/** A turn of one to four milliseconds, in which messages of other threads come. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/**
 * A turn that takes as long as what is due in it: what a page has to draw, its timers, its input. Chromium puts timers in line
 * only behind the messages that are there, so it is the second message that comes after them; it costs a tenth of the first.
 */
export function shortTurn(): Promise<void> {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = ({ data: again }) => {
      if (again) return port2.postMessage(false);
      port1.close();
      port2.close();
      resolve();
    };
    port2.postMessage(true);
  });
}
