/**
 * The engine over shared memory: every rank lays its part of a call on its desk, the last to arrive decides what comes
 * of it, and the others sleep until then.
 *
 * @module
 */

import type { CollectiveError, CollectiveErrorCode } from "../../errors.ts";
import { checkContribution, conclude, fold } from "../contributions.ts";
import { type Engine, type Flow, membersOf, type Request } from "../engine.ts";
import {
  cancelledError,
  combineError,
  deadlineError,
  endedError,
  fromPlain,
  judge,
  leftError,
  messageOf,
} from "../failures.ts";
import {
  allocate,
  type Area,
  areasOf,
  DESK,
  type Desk,
  GROUP,
  openArea,
  partCapacity,
  RANK,
  VERDICT,
  WORLD,
} from "./arena.ts";

/** How a rank waits for the others: `"async"` leaves its thread free, `"block"` holds it up, which is faster. */
export type Waiting = "async" | "block";

/** What all groups of a rank have in common. */
export interface SharedOptions {
  readonly buffer: SharedArrayBuffer;
  /** How long a rank waits for the others in a call, in ms, or Infinity. */
  readonly timeoutMs: number;
  readonly waiting: Waiting;
}

type Own = { readonly values: Float64Array } | { readonly cause: unknown };

/** A call of this rank. */
interface Call {
  readonly number: number;
  readonly request: Request;
  /** When its time is up, as performance.now() counts. */
  readonly until: number;
}

/**
 * Others are often only microseconds behind, so a rank looks for a while before it falls asleep: at most for longer than
 * waking up takes (30 us), or a rank that was woken would find the one that woke it asleep again, call after call; less
 * the more often it was in vain, as where other work has the cores; and for the full time again every now and then.
 */
const SPIN_MS = { most: 0.1, least: 0.005, retry: 32 } as const;
const LOOKS_BETWEEN_CLOCKS = 32;
/** A blocked rank looks up this often, in case a wake-up went to nobody. */
const SLICE_MS = 100;
/** Somebody who has not written down within this time why the group breaks has ended meanwhile. */
const BREAKING_MS = 1000;
/** Rounds are counted up to here and then from 0 again; no two ranks are more than one apart. */
const ROUNDS = 2 ** 30;

/** Tells, once a handle is collected, that its area is needed by one rank less. */
const handles = new FinalizationRegistry((group: Int32Array) => {
  Atomics.sub(group, GROUP.handles, 1);
});

/**
 * Opens one rank's end of a group in shared memory.
 *
 * @param options what all groups of this rank have in common
 * @param offset where the group's area begins
 * @param rank this rank's number in the group
 * @returns the engine
 */
export function sharedEngine(options: SharedOptions, offset: number, rank: number): Engine {
  const area = openArea(options.buffer, offset);
  const table = openTable(area, rank, options);
  const { worldSize } = area;
  let calls = 0;
  let last: Promise<unknown> | null = null;

  /** Performs calls one after the other; at once where none is under way. */
  function inLine<T>(request: Request, perform: (call: Call) => Promise<T>): Promise<T> {
    const number = ++calls;
    Atomics.store(area.ranks[rank], RANK.calls, number);
    const { signal, name } = request;
    if (signal?.aborted) table.giveUp(cancelledError(rank, number, name, signal.reason));
    const broken = table.broken();
    if (broken) {
      Promise.resolve(request.values).catch(() => {}); // Nobody will look at them any more.
      return Promise.reject(broken);
    }
    const cancel = () => table.giveUp(cancelledError(rank, number, name, signal?.reason));
    signal?.addEventListener("abort", cancel, { once: true });
    const start = () => perform({ number, request, until: performance.now() + options.timeoutMs });
    if (last) {
      // The caller may write to its array while earlier calls are under way.
      const { values } = request;
      request = { ...request, values: values instanceof Float64Array ? values.slice() : values };
      if (values instanceof Promise) values.catch(() => {});
    }
    const result = last ? last.then(start) : start();
    const done = result.then(() => {}, () => {}).then(() => {
      signal?.removeEventListener("abort", cancel);
      if (last === done) last = null;
    });
    last = done;
    return result;
  }

  async function perform(call: Call): Promise<readonly Float64Array[]> {
    const { values } = call.request;
    const own = values instanceof Float64Array ? { values } : await table.ready(call);
    const flow = call.request.flow;
    const length = "values" in own ? own.values.length : 0;
    if (length <= area.capacity) return await table.round(call, own, flow);
    // Too long for the desks: agree first, then bring it piece by piece, and fold what all have brought.
    await table.round(call, own, { kind: "barrier" });
    const all = Array.from({ length: worldSize }, () => new Float64Array(length));
    const piece = { ...call, request: { ...call.request, detail: () => "in pieces" } };
    for (let at = 0; at < length; at += area.capacity) {
      const values = (own as { values: Float64Array }).values.subarray(at, at + area.capacity);
      const pieces = await table.round(piece, { values }, { kind: "gather" });
      pieces.forEach((values, other) => all[other].set(values, at));
    }
    try {
      return conclude(flow, all)();
    } catch (cause) {
      const text = describe(call.request, all[rank]);
      throw combineError(call.number, text, worldSize, messageOf(cause), cause);
    }
  }

  async function divide(call: Call): Promise<Engine> {
    const wishes = await perform(call);
    const members = membersOf(wishes, rank);
    // The first member finds room for all, and tells where.
    const room = members[0] === rank
      ? allocate(
        options.buffer,
        members.map((member) => area.ranks[member][RANK.inWorld]),
        partCapacity(area.capacity),
      )
      : 0;
    const told = { ...call, request: { ...call.request, detail: () => "into areas" } };
    const rooms = await table.round(told, { values: Float64Array.of(room) }, { kind: "gather" });
    const [offset] = rooms[members[0]];
    if (offset === 0) {
      throw new RangeError(
        `Cannot split the group as its shared memory has no room for one more of ` +
          `${members.length} ranks: ${options.buffer.byteLength} bytes are in use; split less often, ` +
          `or let go of groups that are done with`,
      );
    }
    return sharedEngine(options, offset, members.indexOf(rank));
  }

  const engine: Engine = {
    rank,
    worldSize,
    meet: (request) => inLine(request, perform),
    split: (request) => inLine(request, divide),
  };
  handles.register(engine, area.group);
  return engine;
}

/**
 * Tells a world in shared memory that a rank will make no further call, in no group.
 *
 * @param buffer the memory
 * @param inWorld the rank's number in the world
 * @param failure what the rank threw, where it did; then its groups break down
 */
export function leaveShared(
  buffer: SharedArrayBuffer,
  inWorld: number,
  failure?: { readonly cause: unknown },
): void {
  // The world first: whoever makes a sub-group of it now sees it there.
  Atomics.store(openArea(buffer, WORLD).ranks[inWorld], RANK.ended, 1);
  for (const { area, rank } of areasOf(buffer, inWorld)) {
    const words = area.ranks[rank];
    Atomics.store(words, RANK.ended, 1);
    if (failure) {
      const calls = Atomics.load(words, RANK.calls);
      breakDown(area, leftError(rank, area.worldSize, calls, messageOf(failure.cause)));
    } else wake(area);
  }
}

/** What a rank does at the table where the parts of a call are laid down. */
interface Table {
  /** Waits for the values of a call that are a promise. */
  readonly ready: (call: Call) => Promise<Own>;
  /** Lays down this rank's part, and waits for what comes of it. */
  readonly round: (call: Call, own: Own, flow: Flow) => Promise<readonly Float64Array[]>;
  /** Breaks the group, whatever is under way. */
  readonly giveUp: (error: CollectiveError) => void;
  /** Why the group is broken, the same object each time; null where it is not. */
  readonly broken: () => CollectiveError | null;
}

function openTable(area: Area, rank: number, { timeoutMs, waiting }: SharedOptions): Table {
  const { group, worldSize, ranks } = area;
  const enoughCores = worldSize <= (globalThis.navigator?.hardwareConcurrency ?? 1);
  const texts = ["", ""];
  const codes: (readonly [number, number])[] = [[0, 0], [0, 0]];
  let own: CollectiveError | null = null;
  let onBreak: (() => void) | null = null;
  let rounds = 0;
  /** How long to look before falling asleep, in ms, and how often in a row that was in vain. */
  let patience: number = SPIN_MS.most;
  let vain = 0;

  function broken(): CollectiveError | null {
    if (own) return own;
    if (Atomics.load(group, GROUP.round) >= 0) return null;
    own = readError(area.breakdown.read());
    return own;
  }

  function giveUp(error: CollectiveError): void {
    if (broken()) return;
    if (breakDown(area, error)) own = error;
    onBreak?.();
  }

  /** Breaks the group unless the round has come to its end meanwhile. */
  function giveUpRound(round: number, error: CollectiveError): void {
    if (breakDown(area, error, round)) own = error;
  }

  async function ready(call: Call): Promise<Own> {
    const { request: { values, name } } = call;
    const settled = Promise.resolve(values).then(
      (values): Own => {
        try {
          return { values: checkContribution(values, name) };
        } catch (cause) {
          return { cause };
        }
      },
      (cause): Own => ({ cause }),
    );
    // Others may give up meanwhile, and this rank's own time may be up.
    const interrupted = watch(call);
    try {
      const own = await Promise.race([settled, interrupted.promise]);
      if (own) return own;
    } finally {
      interrupted.stop();
    }
    throw broken();
  }

  /** Resolves once the group is broken, by this rank if its time is up first. */
  function watch(call: Call): { readonly promise: Promise<null>; readonly stop: () => void } {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let stopped = false;
    const round = rounds;
    const promise = new Promise<null>((resolve) => {
      const look = (): void => {
        if (stopped) return;
        if (performance.now() >= call.until) giveUpRound(round, late(call, round));
        if (broken()) return resolve(null);
        timer = setTimeout(look, Math.min(SLICE_MS / 10, call.until - performance.now()));
      };
      onBreak = look;
      look();
    });
    return {
      promise,
      stop: () => {
        stopped = true;
        onBreak = null;
        clearTimeout(timer);
      },
    };
  }

  /** Lays this rank's part on its desk. */
  function layDown(desk: Desk, side: number, { request }: Call, own: Own): void {
    const failed = "cause" in own;
    const text = failed
      ? `${request.name}: ${messageOf(own.cause)}`
      : describe(request, own.values);
    if (text !== texts[side]) {
      desk.saying.write(text);
      texts[side] = text;
      codes[side] = hash(text);
    }
    const { words } = desk;
    words[DESK.failed] = failed ? 1 : 0;
    words[DESK.length] = failed ? 0 : own.values.length;
    [words[DESK.hash], words[DESK.hash2]] = codes[side];
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
  function result(call: Call, own: Own, flow: Flow, desks: readonly Desk[]): Float64Array[] {
    const cause = "cause" in own ? own.cause : undefined;
    if (group[GROUP.verdict] === VERDICT.refused) throw refusal(call, desks, cause);
    const length = desks[rank].words[DESK.length];
    if (group[GROUP.verdict] === VERDICT.combineFailed) {
      const text = describe(call.request, (own as { values: Float64Array }).values);
      throw combineError(call.number, text, worldSize, area.combining.read());
    }
    switch (flow.kind) {
      case "reduce":
        return [copy(area.total, length)];
      case "gather":
        return desks.map(({ values }) => copy(values, length));
      case "broadcast":
        return [copy(desks[flow.root].values, length)];
      case "barrier":
        return [];
    }
  }

  function refusal({ number }: Call, desks: readonly Desk[], cause: unknown): CollectiveError {
    const sayings = desks.map(({ words, saying }) => ({
      failed: words[DESK.failed] === 1,
      text: saying.read(),
    }));
    const error = judge(number, sayings, cause);
    if (error) return error;
    // Texts that differ past what travels of them.
    const marked = sayings.map(({ failed, text }, other) => ({
      failed,
      text: `${text} (${desks[other].words[DESK.hash2] >>> 0})`,
    }));
    return judge(number, marked, cause)!;
  }

  async function round(call: Call, own: Own, flow: Flow): Promise<readonly Float64Array[]> {
    const stopped = broken();
    if (stopped) throw stopped;
    const number = rounds;
    rounds = (rounds + 1) % ROUNDS;
    const side = number % 2;
    const desks = area.desks[side];
    layDown(desks[rank], side, call, own);
    if ("values" in own && own.values.length <= area.capacity) desks[rank].values.set(own.values);
    Atomics.store(ranks[rank], RANK.arrivals, rounds);
    if (Atomics.add(group, GROUP.arrived, 1) === worldSize - 1) decide(number, desks, flow);
    else if (!(enoughCores && spun(number))) {
      // A blocked thread would not hear its signal.
      if (waiting === "block" && !call.request.signal) sleepBlocked(call, number);
      else await sleep(call, number);
    }
    // A round that was decided stands, even where the group has broken down since.
    if (undecided(number)) throw broken();
    return result(call, own, flow, desks);
  }

  function undecided(round: number): boolean {
    const word = Atomics.load(group, GROUP.round);
    return (word < 0 ? ~word : word) === round;
  }

  function spun(round: number): boolean {
    const end = performance.now() +
      (vain > 0 && vain % SPIN_MS.retry === 0 ? SPIN_MS.most : patience);
    do {
      for (let look = 0; look < LOOKS_BETWEEN_CLOCKS; look++) {
        if (undecided(round)) continue;
        vain = 0;
        patience = Math.min(SPIN_MS.most, 2 * patience);
        return true;
      }
    } while (performance.now() < end);
    vain++;
    patience = Math.max(SPIN_MS.least, patience / 2);
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
    if (absent.length > 0) giveUpRound(round, endedError(absent, number, name));
    else if (performance.now() >= call.until) giveUpRound(round, late(call, round));
    return Atomics.load(group, GROUP.round) !== round;
  }

  async function sleep(call: Call, round: number): Promise<void> {
    for (;;) {
      const seen = Atomics.load(group, GROUP.wake);
      if (over(call, round)) return;
      const { async, value } = Atomics.waitAsync(group, GROUP.wake, seen);
      if (!async) continue;
      // Not as the wait's own time limit, which would stay with the engine until it is over, call by call.
      const left = call.until - performance.now();
      const alarm = left === Infinity ? undefined : setTimeout(() => wake(area), left);
      await value;
      clearTimeout(alarm);
    }
  }

  function sleepBlocked(call: Call, round: number): void {
    for (;;) {
      const seen = Atomics.load(group, GROUP.wake);
      if (over(call, round)) return;
      const left = call.until - performance.now();
      Atomics.wait(group, GROUP.wake, seen, Math.min(SLICE_MS, Math.max(0, left)));
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

  return { ready, round, giveUp, broken };
}

/** Breaks a group; false where it is broken already, or past the only round that was meant. */
function breakDown(area: Area, error: CollectiveError, only?: number): boolean {
  const { group, breakdown } = area;
  const patience = performance.now() + BREAKING_MS;
  while (Atomics.compareExchange(group, GROUP.breaking, 0, 1) !== 0) {
    if (Atomics.load(group, GROUP.round) < 0) return false;
    if (performance.now() > patience) break;
  }
  breakdown.write(writeError(error));
  for (;;) {
    const round = Atomics.load(group, GROUP.round);
    if (round < 0) return false;
    if (only !== undefined && round !== only) {
      Atomics.store(group, GROUP.breaking, 0);
      return false;
    }
    // Negative for broken, and still telling which round was under way.
    if (Atomics.compareExchange(group, GROUP.round, round, ~round) === round) break;
  }
  wake(area);
  return true;
}

function wake({ group }: Area): void {
  Atomics.add(group, GROUP.wake, 1);
  Atomics.notify(group, GROUP.wake);
}

function describe({ name, detail }: Request, values: Float64Array): string {
  return `${name} ${detail(values)}`;
}

/** What a failure says, without the call before it. */
function withoutName(text: string, name: string): string {
  return text.startsWith(`${name}: `) ? text.slice(name.length + 2) : text;
}

/** An error as a text; what is cut off at its end is only of the message. */
function writeError({ code, ranks, message }: CollectiveError): string {
  return `${code} ${ranks.join()}\n${message}`;
}

function readError(text: string): CollectiveError {
  const [head] = text.split("\n", 1);
  const [code, ranks] = head.split(" ");
  return fromPlain({
    code: code as CollectiveErrorCode,
    ranks: ranks.split(",").map(Number),
    message: text.slice(head.length + 1),
  });
}

/** Copies out of the shared memory. */
function copy(values: Float64Array, length: number): Float64Array {
  return values.slice(0, length);
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
