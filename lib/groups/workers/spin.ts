/**
 * Looking again and again before falling asleep.
 *
 * @module
 */

/**
 * Others are often only microseconds behind, so a rank looks for a while before it falls asleep. At most for longer than
 * waking up takes (30 us): a rank that was woken would else find the one that woke it asleep again, call after call. For
 * less the more often it was in vain, as where other work has the cores; and for the full time again now and then.
 */
const SPIN_MS = { most: 0.1, least: 0.005, retry: 32 } as const;
const LOOKS_BETWEEN_CLOCKS = 32;

/** Begins to learn how long to look. */
export function createSpin(): (isOver: () => boolean) => boolean {
  /** How long to look before falling asleep, in ms, and how often in a row that was in vain. */
  let spinMs: number = SPIN_MS.most;
  let vain = 0;
  return (isOver) => {
    const full = vain > 0 && vain % SPIN_MS.retry === 0;
    const end = performance.now() + (full ? SPIN_MS.most : spinMs);
    do {
      for (let look = 0; look < LOOKS_BETWEEN_CLOCKS; look++) {
        if (!isOver()) continue;
        vain = 0;
        spinMs = Math.min(SPIN_MS.most, 2 * spinMs);
        return true;
      }
    } while (performance.now() < end);
    vain++;
    spinMs = Math.max(SPIN_MS.least, spinMs / 2);
    return false;
  };
}
