/**
 * The engine over shared memory: one call at a time, in program order; long arrays in pieces; sub-groups in areas of their
 * own.
 *
 * @module
 */

import { conclude } from "../contributions.ts";
import { type Engine, membersOf, type Request } from "../engine.ts";
import { cancelledError, combineError, leftError, messageOf } from "../failures.ts";
import { allocate, areasOf, GROUP, openArea, partCapacity, RANK, WORLD } from "./arena.ts";
import { breakDown, wake } from "./breakdown.ts";
import { type Call, openTable, type Part, type TableOptions } from "./table.ts";
import { countTurns, type Turns } from "./turns.ts";

/** What all groups of a rank have in common. */
export interface SharedOptions extends TableOptions {
  readonly buffer: SharedArrayBuffer;
}

/** The same, and what they share. */
interface Session extends SharedOptions {
  readonly turns: Turns;
  /** Tells, once an end is collected, that its area is needed by one rank less. */
  readonly ends: FinalizationRegistry<Int32Array>;
}

/**
 * Opens one rank's end of a world in shared memory.
 *
 * @param options what all groups of this rank have in common
 * @param rank this rank's number
 * @returns the engine
 */
export function sharedEngine(options: SharedOptions, rank: number): Engine {
  const ends = new FinalizationRegistry((group: Int32Array) => {
    Atomics.sub(group, GROUP.handles, 1);
  });
  return openEnd({ ...options, turns: countTurns(), ends }, WORLD, rank);
}

function openEnd(session: Session, offset: number, rank: number): Engine {
  const { buffer, timeoutMs, turns, ends } = session;
  const area = openArea(buffer, offset);
  const table = openTable(area, rank, session);
  const { worldSize, capacity } = area;
  let calls = 0;
  let last: Promise<void> | null = null;

  /** Performs calls one after the other; at once where none is under way. */
  function inLine<T>(request: Request, perform: (call: Call) => Promise<T>): Promise<T> {
    const number = ++calls;
    Atomics.store(area.ranks[rank], RANK.calls, number);
    const { values, signal, name } = request;
    if (signal?.aborted) table.giveUp(cancelledError(rank, number, name, signal.reason));
    const broken = table.broken();
    if (broken) {
      Promise.resolve(values).catch(() => {}); // Nobody will look at them any more.
      return Promise.reject(broken);
    }
    const cancel = () => table.giveUp(cancelledError(rank, number, name, signal?.reason));
    signal?.addEventListener("abort", cancel, { once: true });
    const before = last ? last.then(turns.due) : turns.due();
    const { promise: done, resolve: finish } = Promise.withResolvers<void>();
    last = done;
    const start = (request: Request) =>
      perform({ number, request, until: performance.now() + timeoutMs });
    // The caller may write to its array while earlier calls are under way.
    const kept = before && values instanceof Float64Array
      ? { ...request, values: values.slice() }
      : request;
    if (values instanceof Promise) values.catch(() => {}); // Looked at when the call's turn has come.
    const result = before ? before.then(() => start(kept)) : start(kept);
    const leave = () => {
      signal?.removeEventListener("abort", cancel);
      if (last === done) last = null;
      finish();
    };
    result.then(leave, leave);
    return result;
  }

  async function perform(call: Call): Promise<readonly Float64Array[]> {
    const { flow } = call.request;
    const brought = table.bring(call);
    const part = brought instanceof Promise ? await brought : brought;
    if (!("values" in part) || part.values.length <= capacity) {
      return await table.round(call, part, flow);
    }
    const all = await bringInPieces(call, part);
    try {
      return conclude(flow, all)();
    } catch (cause) {
      throw combineError(call.number, part.text, worldSize, messageOf(cause), cause);
    }
  }

  /** What is too long for the desks: the ranks agree first, then bring it piece by piece. */
  async function bringInPieces(
    call: Call,
    { values, text }: Part & { readonly values: Float64Array },
  ): Promise<readonly Float64Array[]> {
    const { length } = values;
    const own = values.slice(); // The caller may write to its array meanwhile.
    await table.round(call, { values: own, text }, { kind: "barrier" });
    const all = Array.from({ length: worldSize }, () => new Float64Array(length));
    for (let at = 0; at < length; at += capacity) {
      const piece = { values: own.subarray(at, at + capacity), text: `${text}, in pieces` };
      const pieces = await table.round(call, piece, { kind: "gather" });
      pieces.forEach((values, other) => all[other].set(values, at));
    }
    return all;
  }

  async function divide(call: Call): Promise<Engine> {
    const wishes = await perform(call);
    const members = membersOf(wishes, rank);
    // The first member finds room for all, and tells where.
    const inWorld = members.map((member) => area.ranks[member][RANK.inWorld]);
    const room = members[0] === rank ? allocate(buffer, inWorld, partCapacity(capacity)) : 0;
    const told = { values: Float64Array.of(room), text: `${call.request.name}, where` };
    const rooms = await table.round(call, told, { kind: "gather" });
    const [offset] = rooms[members[0]];
    if (offset === 0) {
      throw new RangeError(
        `Cannot split the group as its shared memory has no room for one more of ` +
          `${members.length} ranks: ${buffer.byteLength} bytes are in use; split less often, ` +
          `or let go of groups that are done with`,
      );
    }
    return openEnd(session, offset, members.indexOf(rank));
  }

  const engine: Engine = {
    rank,
    worldSize,
    meet: (request) => inLine(request, perform),
    split: (request) => inLine(request, divide),
  };
  ends.register(engine, area.group);
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
  // The world first: whoever makes a sub-group from now on sees it there.
  Atomics.store(openArea(buffer, WORLD).ranks[inWorld], RANK.ended, 1);
  for (const { area, rank } of areasOf(buffer, inWorld)) {
    const words = area.ranks[rank];
    Atomics.store(words, RANK.ended, 1);
    if (failure) {
      const calls = Atomics.load(words, RANK.calls);
      const { cause } = failure;
      breakDown(area, leftError(rank, area.worldSize, calls, messageOf(cause), cause));
    } else wake(area);
  }
}
