/** How a rank waits for what it has started: looking again and again, then asleep for longer and longer. */

import type { Channel } from "./channel.ts";
import { NEVER, patience, type Progress, TURN } from "./requests.ts";
import type { Term } from "./term.ts";

/** What waiting needs to know of a group, and to tell it. */
export interface Standing {
  /** Why it cannot go on, or undefined where it can. */
  readonly broken: () => Error | undefined;
  /** Whether nothing is under way. */
  readonly isIdle: () => boolean;
  /** Whether its ranks are settling what has gone wrong: no step is seen through any more. */
  readonly isSettling: () => boolean;
  /** Looks for messages and at the clock. */
  readonly patrol: (now: number) => void;
  /** Runs what calls MPI; a failure of it breaks the group. */
  readonly guard: (body: () => void) => void;
}

/** How long to sleep while this rank's own values are not there, in microseconds: only messages may come meanwhile. */
const UNREADY_US = 10_000;
/** How long a rank that was busy looks for what has come meanwhile. */
const CATCHING_UP_MS = 1;
/** What nobody ever wakes. */
const ASLEEP = new Int32Array(new SharedArrayBuffer(4));

/** Makes a rank's ways to wait on a channel. */
export function createWaits(
  channel: Channel,
  progress: Progress,
  term: Term,
  { broken, isIdle, isSettling, patrol, guard }: Standing,
) {
  /** Goes on with the call whose request is pending. */
  let resume: (() => void) | undefined;

  /** Looks again and again; at least once. */
  function spin(until: number): boolean {
    do {
      if (channel.test()) return true;
    } while (performance.now() < until);
    return false;
  }

  /** Waits for what was started last; undefined where that is done at once. */
  function complete(bytes: number): Promise<void> | undefined {
    term.post();
    if (spin(performance.now() + progress.spinMs(bytes))) return;
    progress.watch(look);
    return new Promise((resolve) => resume = resolve);
  }

  /** Sees what was started last through, or the group to its end, holding up the thread. */
  function completeNow(bytes: number): void {
    term.post();
    if (spin(performance.now() + progress.spinMs(bytes))) return;
    while (!broken()) {
      if (!isSettling() && spin(performance.now())) return;
      pauseNow();
    }
    throw broken();
  }

  /** Looks for messages and at the clock, and sleeps for a moment where that is due. */
  function pauseNow(): void {
    const now = term.now();
    patrol(now);
    if (broken()) return;
    const ageMs = term.ageMs(now);
    if (ageMs > progress.turnsMs) Atomics.wait(ASLEEP, 0, 0, patience(ageMs) / 1000);
  }

  /** One look of the loop; says when it wants the next. */
  function look(wall: number): number {
    const now = term.now();
    if (broken() || isIdle()) return NEVER;
    let pause = UNREADY_US;
    guard(() => {
      const fresh = term.ageMs(now) < progress.turnsMs;
      // Who was busy has to take in what came meanwhile, which one test does not.
      const until = term.wasBusy(wall)
        ? performance.now() + CATCHING_UP_MS
        : fresh
        ? wall + progress.spinMs(0)
        : wall;
      if (resume && !isSettling() && spin(until)) {
        resume();
        resume = undefined;
        pause = NEVER;
      } else if (resume && fresh) {
        pause = TURN;
      } else {
        patrol(now);
        if (resume || isSettling()) pause = patience(term.ageMs(now));
      }
    });
    return broken() ? NEVER : pause;
  }

  return { complete, completeNow, pauseNow, look };
}
