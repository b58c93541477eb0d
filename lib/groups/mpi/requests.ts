/** When to look whether MPI is done: at once, between turns of the event loop, or after a sleep on another thread. */

import type { Library } from "./library.ts";

/** Looks whether something has happened; says how long to sleep before the next look, in microseconds. */
export type Look = (now: number) => number;

/** What a look says that wants the next turn of the event loop, or that is over. */
export const [TURN, NEVER] = [0, Infinity];

/** What sees all pending calls of a process through. */
export type Progress = ReturnType<typeof createProgress>;

/** However much moves, the event loop gets its turn after this. */
const LONGEST_SPIN_MS = 20;
/**
 * How long to look before the event loop gets its turn, which takes some 10 us: for the only thing that is waited for as long as
 * ranks that do the same are apart, with several for each in turn.
 */
const [ALONE_MS, IN_TURN_MS] = [2, 0.02];
/** Sleeps of at least this many microseconds are timers: they need no thread. */
const TIMER_US = 4000;

/** Makes the loop of a process. It runs only while there is something to look at. */
export function createProgress(library: Library, crowded: boolean) {
  const looks = new Set<Look>();
  let next: { cancelled: boolean } | undefined;
  let urgency = NEVER;

  function schedule(pause: number): void {
    if (next) next.cancelled = true;
    const planned = next = { cancelled: false };
    urgency = pause;
    const tick = () => {
      if (!planned.cancelled) run();
    };
    if (pause === TURN) setImmediate(tick);
    else if (pause >= TIMER_US) setTimeout(tick, pause / 1000);
    else library.symbols.usleep(pause).then(tick);
  }

  function run(): void {
    next = undefined;
    urgency = NEVER;
    const now = performance.now();
    let soonest = NEVER;
    for (const look of looks) {
      const pause = look(now);
      if (pause === NEVER) looks.delete(look);
      soonest = Math.min(soonest, pause);
    }
    // A look may have planned one itself, by what it woke.
    if (soonest < urgency) schedule(soonest);
  }

  return {
    /** How long to look again and again, in ms, while so many bytes move: this thread's own work, 1 GB/s at least. */
    spinMs: (bytes: number): number => {
      if (crowded) return 0;
      return (looks.size > 0 ? IN_TURN_MS : ALONE_MS) + Math.min(bytes / 1e6, LONGEST_SPIN_MS);
    },
    /** How long to look in every turn of the event loop after that, in ms. */
    turnsMs: crowded ? 0 : 1,
    /** Looks from now on, the first time in the next turn of the event loop; once more for a look that is known. */
    watch: (look: Look): void => {
      looks.add(look);
      if (urgency > TURN) schedule(TURN);
    },
  };
}

/** How long to sleep for something that has not happened for a while, in microseconds. */
export function patience(ageMs: number): number {
  return ageMs < 10 ? 50 : ageMs < 100 ? 200 : 500;
}
