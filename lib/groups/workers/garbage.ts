/**
 * What tells the collector that something small holds on to something large, which it cannot see.
 *
 * @module
 */

import { nextTurn } from "../turns.ts";

/** What makes collectors run: memory that was never touched, which costs nothing but its addresses. */
const PRESSURE = { bytes: 2 ** 26, times: 3 } as const;
/** Turns that a collection may take until it is told of: some platforms collect in steps, between turns. */
const MOST_TURNS = 12;
/** Bytes in shared memory that may wait for being collected. */
const UNSEEN_BYTES = 2 ** 28;

/** Counts what a thread has taken of memory that its collector does not see. */
export interface Weight {
  /** So many bytes more. */
  readonly add: (bytes: number) => void;
  /** So many bytes less: the collector has been there. */
  readonly remove: (bytes: number) => void;
  /** Whether there are so many that it is time to collect. */
  readonly isDue: () => boolean;
  /** Has garbage collected, and waits until some of it was told of, or there seems to be none. */
  readonly collect: () => Promise<void>;
}

/** Begins to count. */
export function countWeight(): Weight {
  /** Since the last collection. */
  let unseen = 0;
  /** How often the collector was heard of. */
  let told = 0;
  return {
    add: (bytes) => {
      unseen += bytes;
    },
    remove: (bytes) => {
      unseen = Math.max(0, unseen - bytes);
      told++;
    },
    isDue: () => unseen >= UNSEEN_BYTES,
    collect: async () => {
      unseen = 0;
      const before = told;
      for (let turn = 0; turn < MOST_TURNS && told === before; turn++) {
        press();
        await nextTurn();
      }
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
