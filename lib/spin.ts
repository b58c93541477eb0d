/**
 * Looking again and again before falling asleep: others are often only microseconds behind, and waking up takes 30 us and more.
 */

/** How long to look, in ms. */
export interface SpinTimes {
  readonly most: number;
  /** What it comes down to, halved each time that it was in vain, as where other work has the cores. */
  readonly least: number;
  /** After so many times in vain it is the most again. */
  readonly retry: number;
  /** Looks between two looks at the clock, which leave garbage. */
  readonly looks: number;
}

/** Begins to learn how long to look. */
export function createSpin({ most, least, retry, looks }: SpinTimes) {
  let spinMs = most;
  let vain = 0;
  return (isOver: () => boolean): boolean => {
    const full = vain > 0 && vain % retry === 0;
    const end = performance.now() + (full ? most : spinMs);
    do {
      for (let look = 0; look < looks; look++) {
        if (!isOver()) continue;
        vain = 0;
        spinMs = Math.min(most, 2 * spinMs);
        return true;
      }
    } while (performance.now() < end);
    vain++;
    spinMs = Math.max(least, spinMs / 2);
    return false;
  };
}
