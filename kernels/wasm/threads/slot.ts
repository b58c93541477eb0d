/** The caller's side of a helper's slot: hand over a call, wait until it has ended, read how. */

import type { Patience } from "../../../lib/patience.ts";
import { createSpin } from "../../../lib/spin.ts";
import { LAYOUT } from "./protocol.ts";

/** How the caller hands work to one helper. */
export interface Slot {
  /** Hands over a call; the one before it must have ended. */
  readonly hand: (kernel: number, values: readonly number[]) => void;
  /** Waits until the call has ended, as long as there is patience; false where it has not. */
  readonly await: (patience: Patience) => boolean;
  /** What the helper's kernel threw; null where nothing. */
  readonly failure: () => string | null;
  /** Tells the helper to end as soon as it looks. */
  readonly stop: () => void;
}

/**
 * For how long the caller spins before it sleeps, in ms. At most about what sleeping and waking costs, so that it loses at
 * most twice what it had to; half of that each time it was in vain, since then the helper may need this very core, and the
 * whole again now and then, since the next helper may not.
 */
const SPIN = { most: 0.1, least: 0.02, retry: 16, looks: LAYOUT.looks } as const;
/** How long the caller sleeps at a stretch, in ms. */
const SLICE_MS = 50;

/** Makes the buffer of the control words. */
export function controlBuffer(slots: number): SharedArrayBuffer {
  return new SharedArrayBuffer(slots * LAYOUT.slotBytes);
}

/** Opens the slot of a helper. */
export function openSlot(control: SharedArrayBuffer, index: number): Slot {
  const at = index * LAYOUT.slotBytes;
  const words = new Int32Array(control, at, LAYOUT.slotBytes / 4);
  const numbers = new Float64Array(control, at + LAYOUT.argumentBytes, LAYOUT.mostArguments);
  const letters = new Uint16Array(control, at + LAYOUT.textBytes, LAYOUT.mostLetters);
  const { epoch, done } = LAYOUT;
  let handed = 0;
  const spun = createSpin(SPIN);

  const hasEnded = () => Atomics.load(words, done) === handed;
  const call = (kernel: number): void => {
    words[LAYOUT.kernel] = kernel;
    handed = (handed + 1) | 0;
    Atomics.store(words, epoch, handed);
    if (Atomics.load(words, LAYOUT.helperSleeps) === 1) Atomics.notify(words, epoch);
  };
  const hand = (kernel: number, values: readonly number[]): void => {
    words[LAYOUT.count] = values.length;
    for (let i = 0; i < values.length; i++) numbers[i] = values[i];
    call(kernel);
  };
  // Leaves the arguments alone: a helper that is late may be about to read them.
  const stop = (): void => call(LAYOUT.stop);
  const wait = ({ sliceMs, leftMs }: Patience): boolean => {
    if (hasEnded() || spun(hasEnded)) return true;
    Atomics.store(words, LAYOUT.callerSleeps, 1);
    try {
      while (!hasEnded()) {
        const left = leftMs();
        if (left <= 0) return false;
        Atomics.wait(words, done, (handed - 1) | 0, Math.min(SLICE_MS, sliceMs, left));
      }
      return true;
    } finally {
      Atomics.store(words, LAYOUT.callerSleeps, 0);
    }
  };
  const failure = (): string | null =>
    words[LAYOUT.failed] === 0
      ? null
      : String.fromCharCode(...letters.subarray(0, words[LAYOUT.failed]));
  return Object.freeze({ hand, await: wait, failure, stop });
}
