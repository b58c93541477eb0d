/**
 * What tells the collector that something small holds on to something large, which it cannot see.
 *
 * @module
 */

import { nextTurn } from "./turns.ts";

/** What makes collectors run: memory that was never touched, which costs nothing but its addresses. */
const PRESSURE = { bytes: 2 ** 26, times: 3 } as const;
/** Bytes in shared memory that may wait for being collected. */
const UNSEEN_BYTES = 2 ** 28;

/** Counts what a thread has taken of memory that its collector does not see. */
export interface Weight {
  /** So many bytes more. */
  readonly add: (bytes: number) => void;
  /** Has garbage collected, and those told who registered for it. */
  readonly collect: () => Promise<void>;
}

/** Begins to count. */
export function countWeight(): Weight {
  let unseen = 0;
  return {
    add: (bytes) => {
      unseen += bytes;
      if (unseen < UNSEEN_BYTES) return;
      unseen = 0;
      press();
    },
    collect: async () => {
      press();
      for (let i = 0; i < PRESSURE.times; i++) await nextTurn();
    },
  };
}

function press(): void {
  try {
    for (let i = 0; i < PRESSURE.times; i++) new ArrayBuffer(PRESSURE.bytes);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // Memory is short: it has collected before it said so.
  }
}
