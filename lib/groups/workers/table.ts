/**
 * The table at which the ranks of a group in shared memory meet: every rank lays its part of a call on its desk, the last
 * to arrive decides what comes of it, and the others sleep until then.
 *
 * One word decides a round: the last rank to arrive moves it on, a rank whose time is up makes it negative. Whichever
 * comes first is what happened, for all ranks. A call with a signal is waited for without blocking even where `wait:
 * "block"` is asked for: a blocked thread would not hear it.
 *
 * @module
 */

import type { CollectiveError } from "../../errors.ts";
import { checkContribution, fold } from "../contributions.ts";
import type { Flow, Request } from "../engine.ts";
import { combineError, deadlineError, endedError, judge, messageOf } from "../failures.ts";
import { type Area, DESK, type Desk, GROUP, RANK, VERDICT } from "./arena.ts";
import { breakDown, breakdownOf, wake } from "./breakdown.ts";

/** How a rank waits for the others: `"async"` leaves its thread free, `"block"` holds it up, which is faster. */
export type Waiting = "async" | "block";

/** A call of a rank. */
export interface Call {
  readonly number: number;
  readonly request: Request;
  /** When its time is up, as performance.now() counts. */
  readonly until: number;
}

/** What a rank brings to a call: values and what all must call alike, or why it brings nothing. */
export type Part =
  | { readonly values: Float64Array; readonly text: string }
  | { readonly cause: unknown; readonly text: string };

/** What a rank does at the table. */
export interface Table {
  /** This rank's part of a call; waits for values that are a promise. */
  readonly bring: (call: Call) => Part | Promise<Part>;
  /** Lays down this rank's part, and waits for what comes of it. */
  readonly round: (call: Call, part: Part, flow: Flow) => Promise<readonly Float64Array[]>;
  /** Breaks the group, whatever is under way. */
  readonly giveUp: (error: CollectiveError) => void;
  /** Why the group is broken, the same object each time; null where it is not. */
  readonly broken: () => CollectiveError | null;
}

/** How a table is used. */
export interface TableOptions {
  /** How long a rank waits for the others in a call, in ms, or Infinity. */
  readonly timeoutMs: number;
  readonly waiting: Waiting;
  /** Cores of this machine. */
  readonly cores: number;
}

/**
 * Others are often only microseconds behind, so a rank looks for a while before it falls asleep. At most for longer than
 * waking up takes (30 us): a rank that was woken would else find the one that woke it asleep again, call after call. For
 * less the more often it was in vain, as where other work has the cores; and for the full time again now and then.
 */
const SPIN_MS = { most: 0.1, least: 0.005, retry: 32 } as const;
const LOOKS_BETWEEN_CLOCKS = 32;
/** A blocked rank looks up this often, in case a wake-up went to nobody. */
const SLICE_MS = 100;
/** A rank whose values are not there looks this often whether the group still stands. */
const WATCH_MS = 10;
/** Rounds are counted up to here, an even number, and then from 0 again; no two ranks are more than one apart. */
const ROUNDS = 2 ** 30;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * Takes a rank's place at the table.
 *
 * @param area the group's memory
 * @param rank this rank's number in the group
 * @param options how to wait
 * @returns what the rank does there
 */
export function openTable(area: Area, rank: number, options: TableOptions): Table {
  const { timeoutMs, waiting, cores } = options;
  const { group, worldSize, ranks } = area;
  const enoughCores = worldSize <= cores;
  /** What this rank's desks say, so that the same need not be written again. */
  const written = [{ text: "", code: hash("") }, { text: "", code: hash("") }];
  let failure: CollectiveError | null = null;
  /** Why combining failed, on the rank that did it. */
  let combineCause: unknown;
  let rounds = 0;
  /** How long to look before falling asleep, in ms, and how often in a row that was in vain. */
  let spinMs: number = SPIN_MS.most;
  let vain = 0;

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
    if (request.values instanceof Float64Array) return partOf(request, request.values);
    return arrive(call, request.values);
  }

  /** The values are a promise: meanwhile others may give up, and this rank's own time may be up. */
  async function arrive(call: Call, values: Promise<Float64Array>): Promise<Part> {
    const { request } = call;
    const round = rounds;
    const settled = Promise.resolve(values).then(
      (values) => partOf(request, values),
      (cause): Part => failedPart(request, cause),
    );
    let timer: ReturnType<typeof setInterval> | undefined;
    const interrupted = new Promise<null>((resolve) => {
      const look = (): void => {
        if (performance.now() >= call.until) breakAll(late(call, round), round);
        if (broken()) resolve(null);
      };
      timer = setInterval(look, Math.min(WATCH_MS, timeoutMs));
    });
    try {
      const part = await Promise.race([settled, interrupted]);
      if (part) return part;
      throw broken();
    } finally {
      clearInterval(timer);
    }
  }

  /** Lays this rank's part on its desk. */
  function layDown(desk: Desk, side: number, part: Part): void {
    if (part.text !== written[side].text) {
      desk.saying.write(part.text);
      written[side] = { text: part.text, code: hash(part.text) };
    }
    const { words } = desk;
    const length = "values" in part ? part.values.length : 0;
    words[DESK.failed] = "values" in part ? 0 : 1;
    words[DESK.length] = length;
    [words[DESK.hash], words[DESK.hash2]] = written[side].code;
    if ("values" in part && length <= area.capacity) desk.values.set(part.values);
  }

  function agreed(desks: readonly Desk[]): boolean {
    const [{ words: first }] = desks;
    return desks.every(({ words }) =>
      words[DESK.failed] === 0 && words[DESK.length] === first[DESK.length] &&
      words[DESK.hash] === first[DESK.hash] && words[DESK.hash2] === first[DESK.hash2]
    );
  }

  /** What the last to arrive does for all. */
  function decide(round: number, desks: readonly Desk[], flow: Flow): void {
    Atomics.store(group, GROUP.combining, rank + 1);
    let verdict: number = VERDICT.done;
    if (!agreed(desks)) verdict = VERDICT.refused;
    else if (flow.kind === "reduce") {
      try {
        const length = desks[0].words[DESK.length];
        area.total.set(fold(desks.map(({ values }) => values.subarray(0, length)), flow.combine));
      } catch (cause) {
        combineCause = cause;
        area.combining.write(messageOf(cause));
        verdict = VERDICT.combineFailed;
      }
    }
    group[GROUP.verdict] = verdict;
    group[GROUP.arrived] = 0;
    Atomics.store(group, GROUP.combining, 0);
    // If the group has broken down meanwhile, it stays so.
    Atomics.compareExchange(group, GROUP.round, round, (round + 1) % ROUNDS);
    wake(area);
  }

  /** What all get, from what lies on the table. */
  function result(call: Call, part: Part, flow: Flow, desks: readonly Desk[]): Float64Array[] {
    const verdict = group[GROUP.verdict];
    if (verdict === VERDICT.refused) {
      throw refusal(call, desks, "cause" in part ? part.cause : undefined);
    }
    if (verdict === VERDICT.combineFailed) {
      const cause = combineCause;
      combineCause = undefined;
      throw combineError(call.number, part.text, worldSize, area.combining.read(), cause);
    }
    // Copies: slices of shared memory are not shared.
    const length = desks[rank].words[DESK.length];
    switch (flow.kind) {
      case "reduce":
        return [area.total.slice(0, length)];
      case "gather":
        return desks.map(({ values }) => values.slice(0, length));
      case "broadcast":
        return [desks[flow.root].values.slice(0, length)];
      case "barrier":
        return [];
    }
  }

  function refusal({ number }: Call, desks: readonly Desk[], cause: unknown): CollectiveError {
    const sayings = desks.map(({ words, saying }) => ({
      failed: words[DESK.failed] === 1,
      text: saying.read(),
    }));
    // Texts may differ past what is read of them.
    const marked = () =>
      sayings.map(({ failed, text }, other) => {
        const { words } = desks[other];
        const marks = [words[DESK.hash], words[DESK.hash2], words[DESK.length]];
        return { failed, text: `${text} (${marks.map((mark) => (mark >>> 0).toString(16))})` };
      });
    return judge(number, sayings, cause) ?? judge(number, marked(), cause)!;
  }

  async function round(call: Call, part: Part, flow: Flow): Promise<readonly Float64Array[]> {
    const stopped = broken();
    if (stopped) throw stopped;
    const number = rounds;
    rounds = (rounds + 1) % ROUNDS;
    const side = number % 2;
    const desks = area.desks[side];
    layDown(desks[rank], side, part);
    Atomics.store(ranks[rank], RANK.arrivals, rounds);
    if (Atomics.add(group, GROUP.arrived, 1) === worldSize - 1) decide(number, desks, flow);
    else if (!(enoughCores && spun(number))) {
      // A blocked thread would not hear its signal.
      if (waiting === "block" && !call.request.signal) sleepBlocked(call, number);
      else await sleep(call, number);
    }
    // A round that was decided stands, even where the group has broken down since.
    if (undecided(number)) throw broken();
    return result(call, part, flow, desks);
  }

  function undecided(round: number): boolean {
    const word = Atomics.load(group, GROUP.round);
    return (word < 0 ? ~word : word) === round;
  }

  function spun(round: number): boolean {
    const full = vain > 0 && vain % SPIN_MS.retry === 0;
    const end = performance.now() + (full ? SPIN_MS.most : spinMs);
    do {
      for (let look = 0; look < LOOKS_BETWEEN_CLOCKS; look++) {
        if (undecided(round)) continue;
        vain = 0;
        spinMs = Math.min(SPIN_MS.most, 2 * spinMs);
        return true;
      }
    } while (performance.now() < end);
    vain++;
    spinMs = Math.max(SPIN_MS.least, spinMs / 2);
    return false;
  }

  /** Whether there is nothing to wait for; breaks the group where there is nobody to wait for. */
  function over(call: Call, round: number): boolean {
    if (Atomics.load(group, GROUP.round) !== round) return true;
    const { number, request: { name } } = call;
    const absent = [...ranks.keys()].filter((other) =>
      Atomics.load(ranks[other], RANK.ended) === 1 &&
      Atomics.load(ranks[other], RANK.calls) < number
    );
    if (absent.length > 0) breakAll(endedError(absent, number, name), round);
    else if (performance.now() >= call.until) breakAll(late(call, round), round);
    return Atomics.load(group, GROUP.round) !== round;
  }

  async function sleep(call: Call, round: number): Promise<void> {
    for (;;) {
      const seen = Atomics.load(group, GROUP.wake);
      if (over(call, round)) return;
      const { async, value } = Atomics.waitAsync(group, GROUP.wake, seen);
      if (!async) continue;
      // Not as the wait's own time limit, which would stay with the engine until it is over, call by call. It also keeps
      // a thread alive that has nothing else to do.
      const leftMs = call.until - performance.now();
      const alarm = setTimeout(() => wake(area), Math.min(leftMs, LONGEST_TIMER_MS));
      await value;
      clearTimeout(alarm);
    }
  }

  function sleepBlocked(call: Call, round: number): void {
    for (;;) {
      const seen = Atomics.load(group, GROUP.wake);
      if (over(call, round)) return;
      const leftMs = call.until - performance.now();
      Atomics.wait(group, GROUP.wake, seen, Math.min(SLICE_MS, Math.max(0, leftMs)));
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

  return { bring, round, giveUp, broken };
}

/** Checks what a rank brings and describes it; what is wrong with it is the rank's failure. */
function partOf(request: Request, values: Float64Array): Part {
  const { name, detail } = request;
  try {
    return { values: checkContribution(values, name), text: `${name} ${detail(values)}` };
  } catch (cause) {
    return failedPart(request, cause);
  }
}

function failedPart({ name }: Request, cause: unknown): Part {
  return { cause, text: `${name}: ${messageOf(cause)}` };
}

/** What a failure says, without the call before it. */
function withoutName(text: string, name: string): string {
  return text.startsWith(`${name}: `) ? text.slice(name.length + 2) : text;
}

/** 64 bits that differ where texts do: FNV-1a with two bases (Fowler, Noll, Vo 1991). */
function hash(text: string): readonly [number, number] {
  let [a, b] = [0x811c9dc5, 0x9747b28c];
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    a = Math.imul(a ^ unit, 0x01000193);
    b = Math.imul(b ^ unit, 0x01000193) ^ (b >>> 15);
  }
  return [a | 0, b | 0];
}
