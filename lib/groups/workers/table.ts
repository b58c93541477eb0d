/**
 * The table at which the ranks of a group in shared memory meet: every rank lays its part of a call on its desk, the last
 * to arrive decides what comes of it, and the others sleep until then.
 *
 * One word decides a round: the last rank to arrive moves it on, a rank whose time is up makes it negative. Whichever
 * comes first is what happened, for all ranks. A call with a signal is waited for without blocking even where `wait:
 * "block"` is asked for: a blocked thread would not hear it.
 */

import type { CollectiveError } from "../../errors.ts";
import { combineError, messageOf, type Saying } from "../failures.ts";
import { type Area, DESK, type Desk, GROUP, RANK, roundOf, ROUNDS, VERDICT } from "./area.ts";
import { breakDown, breakdownOf, wake } from "./breakdown.ts";
import {
  agreed,
  type Call,
  failedPart,
  openDesks,
  type Part,
  partOf,
  refusalOf,
  sayingsOf,
} from "./desks.ts";
import { createWaits } from "./waits.ts";

/** How a rank waits for the others: `"async"` leaves its thread free, `"block"` holds it up, which is faster. */
export type Waiting = "async" | "block";

/** What lies on the table; what is beyond `length` is of other rounds. */
export interface Laid {
  readonly desks: readonly Pick<Desk, "values">[];
  readonly length: number;
  readonly total: Float64Array;
}

/** What becomes of the parts of a round. */
export interface Plan<T> {
  /** Done by the last to arrive, for all: combines what the ranks brought. */
  readonly combine?: (laid: Laid) => void;
  /**
   * The same and `take` by every rank for itself, where all can: so nobody waits for the one that does it, nor for what it
   * writes. Gives the same bits, or the same error, on every rank.
   */
  readonly combineAlone?: (laid: Laid) => T;
  /** Done by every rank once all have arrived; what was laid down is there until its next round. */
  readonly take: (laid: Laid) => T;
  /** The error where a rank has failed, if not that of a rank which failed before its call. */
  readonly refuse?: (sayings: readonly Saying[], cause: unknown) => CollectiveError;
}

/** Something that yields the number of a round whenever it has to wait for its end. */
export type Steps<T> = Generator<number, T, void>;

/** What a rank does at the table. */
export interface Table {
  /** This rank's part of a call; waits for values that are a promise. */
  readonly bring: (call: Call) => Part | Promise<Part>;
  /** Lays down this rank's part, and waits for what comes of it. */
  readonly round: <T>(call: Call, part: Part, plan: Plan<T>) => Steps<T>;
  /** Goes through steps, waiting as this rank waits. */
  readonly drive: <T>(call: Call, steps: Steps<T>) => Promise<T>;
  /** Goes through steps, holding up the thread. */
  readonly driveNow: <T>(call: Call, steps: Steps<T>) => T;
  /** Breaks the group, whatever is under way. */
  readonly giveUp: (error: CollectiveError) => void;
  /** Why the group is broken, the same object each time; null where it is not. */
  readonly broken: () => CollectiveError | null;
}

/** How a table is used. */
export interface TableOptions {
  /** How long a rank waits for the others in a call, in ms of its own, or Infinity. */
  readonly timeoutMs: number;
  readonly waiting: Waiting;
  /** Cores of this machine. */
  readonly cores: number;
  /** Looks for a while whether something is over: a rank learns in all its groups how long that pays. */
  readonly spun: (isOver: () => boolean) => boolean;
}

/** A rank whose values are not there looks this often whether the group still stands. */
const WATCH_MS = 10;

/** Takes a rank's place at the table. */
export function openTable(area: Area, rank: number, options: TableOptions): Table {
  const { timeoutMs, waiting, cores, spun } = options;
  const { group, worldSize, ranks } = area;
  const enoughCores = worldSize <= cores;
  const layDown = openDesks(area, rank);
  let failure: CollectiveError | null = null;
  /** Why combining failed, on the rank that did it. */
  let combineCause: unknown;
  // No round has come to its end without this rank, though the group may be broken already.
  let { round: rounds } = roundOf(Atomics.load(group, GROUP.round));
  const { sleep, sleepBlocked, late } = createWaits(area, timeoutMs, breakAll);

  function broken(): CollectiveError | null {
    if (failure === null && Atomics.load(group, GROUP.round) < 0) failure = breakdownOf(area);
    return failure;
  }

  function giveUp(error: CollectiveError): void {
    if (!broken()) breakAll(error);
  }

  /** Breaks the group; a round that has come to its end meanwhile stands. */
  function breakAll(error: CollectiveError, only?: number): void {
    if (breakDown(area, error, only)) failure = breakdownOf(area, { cause: error.cause });
  }

  function bring(call: Call): Part | Promise<Part> {
    const { request } = call;
    const { values } = request;
    if (values instanceof Float64Array) return partOf(request, () => values);
    return arrive(call, values);
  }

  /** The values are a promise: meanwhile others may give up, and this rank's own time may be up. */
  async function arrive(call: Call, values: Promise<Float64Array>): Promise<Part> {
    const { request, patience } = call;
    const round = rounds;
    const settled = Promise.resolve(values).then(
      (values) => partOf(request, () => values),
      (cause): Part => failedPart(request, cause),
    );
    let timer: ReturnType<typeof setInterval> | undefined;
    const interrupted = new Promise<null>((resolve) => {
      const look = (): void => {
        if (patience.leftMs() <= 0) breakAll(late(call, round), round);
        if (broken()) resolve(null);
      };
      timer = setInterval(look, Math.min(WATCH_MS, patience.sliceMs));
    });
    try {
      const part = await Promise.race([settled, interrupted]);
      if (part) return part;
      throw broken();
    } finally {
      clearInterval(timer);
    }
  }

  function laidIn(round: number): Laid {
    const desks = area.desks[round % 2];
    const length = Math.min(area.capacity, desks[rank].words[DESK.length]);
    return { desks, length, total: area.totals[round % 2] };
  }

  /** What the last to arrive does for all. */
  function decide<T>(round: number, { combine }: Plan<T>): void {
    let verdict: number = VERDICT.done;
    if (!agreed(area.desks[round % 2])) verdict = VERDICT.refused;
    else if (area.desks[round % 2].every(({ words }) => words[DESK.alone] === 1)) {
      verdict = VERDICT.apart;
    } else if (combine) {
      Atomics.store(group, GROUP.combining, rank + 1);
      try {
        combine(laidIn(round));
      } catch (cause) {
        combineCause = cause;
        area.combining.write(messageOf(cause));
        verdict = VERDICT.combineFailed;
      }
      Atomics.store(group, GROUP.combining, 0);
    }
    group[GROUP.verdict] = verdict;
    group[GROUP.arrived] = 0;
    // If the group has broken down meanwhile, it stays so.
    Atomics.compareExchange(group, GROUP.round, round, (round + 1) % ROUNDS);
    wake(area);
  }

  /** What all get, from what lies on the table. */
  function result<T>(call: Call, part: Part, plan: Plan<T>, round: number): T {
    const verdict = group[GROUP.verdict];
    if (verdict === VERDICT.refused) {
      const desks = area.desks[round % 2];
      const cause = "cause" in part ? part.cause : undefined;
      throw plan.refuse?.(sayingsOf(desks), cause) ?? refusalOf(call.number, desks, cause);
    }
    const combining = (reason: string, cause: unknown) =>
      combineError(call.number, part.text, worldSize, reason, cause);
    if (verdict === VERDICT.combineFailed) {
      const cause = combineCause;
      combineCause = undefined;
      throw combining(area.combining.read(), cause);
    }
    const laid = laidIn(round);
    if (verdict !== VERDICT.apart) return plan.take(laid);
    try {
      return plan.combineAlone!(laid);
    } catch (cause) {
      throw combining(messageOf(cause), cause);
    }
  }

  function* round<T>(call: Call, part: Part, plan: Plan<T>): Steps<T> {
    const stopped = broken();
    if (stopped) throw stopped;
    const number = rounds;
    rounds = (rounds + 1) % ROUNDS;
    layDown(number % 2, part, plan.combineAlone !== undefined);
    Atomics.store(ranks[rank], RANK.arrivals, rounds);
    if (Atomics.add(group, GROUP.arrived, 1) === worldSize - 1) {
      decide(number, plan);
    } else if (!(enoughCores && spun(() => !undecided(number)))) yield number;
    // A round that was decided stands, even where the group has broken down since.
    if (undecided(number)) throw broken();
    return result(call, part, plan, number);
  }

  async function drive<T>(call: Call, steps: Steps<T>): Promise<T> {
    // A blocked thread would not hear its signal.
    const blocks = waiting === "block" && !call.request.signal;
    for (;;) {
      const { done, value } = steps.next();
      if (done) return value;
      if (blocks) sleepBlocked(call, value);
      else await sleep(call, value);
    }
  }

  function driveNow<T>(call: Call, steps: Steps<T>): T {
    for (;;) {
      const { done, value } = steps.next();
      if (done) return value;
      sleepBlocked(call, value);
    }
  }

  function undecided(round: number): boolean {
    return roundOf(Atomics.load(group, GROUP.round)).round === round;
  }

  return { bring, round, drive, driveNow, giveUp, broken };
}
