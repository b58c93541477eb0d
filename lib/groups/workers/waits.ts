/** How a rank waits for the end of a round: asleep, looking at the clock now and then, and at who is still to come. */

import type { CollectiveError } from "../../errors.ts";
import { deadlineError, endedError } from "../failures.ts";
import { type Area, DESK, GROUP, RANK, ROUNDS } from "./area.ts";
import { hasEnded } from "./arena.ts";
import type { Call } from "./desks.ts";

/** Ways to wait for the end of a round. */
export interface Waits {
  /** Leaves the thread free meanwhile. */
  readonly sleep: (call: Call, round: number) => Promise<void>;
  /** Holds it up. */
  readonly sleepBlocked: (call: Call, round: number) => void;
  /** The error of a call whose time is up in a round. */
  readonly late: (call: Call, round: number) => CollectiveError;
}

/** Makes a rank's ways; `breakAll` breaks the group where the round is still under way. */
export function createWaits(
  area: Area,
  timeoutMs: number,
  breakAll: (error: CollectiveError, round: number) => void,
): Waits {
  const { group, ranks } = area;

  /** Whether there is nothing to wait for; breaks the group where there is nobody to wait for. */
  function over(call: Call, round: number): boolean {
    if (Atomics.load(group, GROUP.round) !== round) return true;
    const { number, request: { name } } = call;
    const absent = [...ranks.keys()].filter((other) =>
      hasEnded(area, other) && Atomics.load(ranks[other], RANK.calls) < number
    );
    if (absent.length > 0) breakAll(endedError(absent, number, name), round);
    else if (call.patience.leftMs() <= 0) breakAll(late(call, round), round);
    return Atomics.load(group, GROUP.round) !== round;
  }

  async function sleep(call: Call, round: number): Promise<void> {
    for (;;) {
      const seen = Atomics.load(group, GROUP.wake);
      if (over(call, round)) return;
      const { async, value } = Atomics.waitAsync(group, GROUP.wake, seen);
      if (async) await woken(call, round, value);
    }
  }

  /**
   * Waits for a wake-up, and looks at the clock meanwhile. Not by the wait's own time limit, which would stay with the
   * engine until it is over, call by call; and it must not wake the others. Timers also keep a thread alive that has
   * nothing else to do.
   */
  function woken(call: Call, round: number, value: Promise<unknown>): Promise<void> {
    const { sliceMs, leftMs } = call.patience;
    return new Promise((resolve) => {
      let timer: ReturnType<typeof setTimeout>;
      const wait = (): void => {
        timer = setTimeout(look, Math.max(1, Math.min(sliceMs, leftMs())));
      };
      const look = () => over(call, round) ? resolve() : wait();
      wait();
      value.then(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  function sleepBlocked(call: Call, round: number): void {
    const { sliceMs, leftMs } = call.patience;
    for (;;) {
      const seen = Atomics.load(group, GROUP.wake);
      if (over(call, round)) return;
      Atomics.wait(group, GROUP.wake, seen, Math.min(sliceMs, Math.max(0, leftMs())));
    }
  }

  function late({ number, request: { name } }: Call, round: number): CollectiveError {
    const arrived = (other: number) => ranks[other][RANK.arrivals] === (round + 1) % ROUNDS;
    const others = [...ranks.keys()].filter((other) => !arrived(other));
    const isMissing = (other: number) => Atomics.load(ranks[other], RANK.calls) < number;
    const desks = area.desks[round % 2];
    const combining = Atomics.load(group, GROUP.combining);
    return deadlineError({
      call: number,
      name,
      timeoutMs,
      missing: others.filter(isMissing),
      unready: others.filter((other) => !isMissing(other)),
      failed: [...ranks.keys()]
        .filter((other) => arrived(other) && desks[other].words[DESK.failed] === 1)
        .map((rank) => ({ rank, message: withoutName(desks[rank].saying.read(), name) })),
      ...(combining > 0 ? { combining: combining - 1 } : {}),
    });
  }

  return { sleep, sleepBlocked, late };
}

/** What a failure says, without the call before it. */
function withoutName(text: string, name: string): string {
  return text.startsWith(`${name}: `) ? text.slice(name.length + 2) : text;
}
