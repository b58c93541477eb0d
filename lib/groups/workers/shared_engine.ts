/**
 * The engine over shared memory: one call at a time, in program order; long arrays in pieces; sub-groups in areas of their
 * own.
 */

import { deferred } from "../../deferred.ts";
import { patienceFor } from "../../patience.ts";
import { createSpin } from "../../spin.ts";
import { cannotBlock, type Engine, membersOf, type Request } from "../engine.ts";
import { busyError, cancelledError, leftError, messageOf } from "../failures.ts";
import { countTurns, shortTurn, type Turns } from "../turns.ts";
import { allocate, areasOf, end, partCapacity, WORLD } from "./arena.ts";
import { GROUP, openArea, openHead, RANK } from "./area.ts";
import { breakDown, wake } from "./breakdown.ts";
import { type Call, type Part, partOf } from "./desks.ts";
import { countWeight, type Weight } from "./garbage.ts";
import { bringInPieces, planOf } from "./pieces.ts";
import { openTable, type Steps, type TableOptions } from "./table.ts";

/** What all groups of a rank have in common. */
export interface SharedOptions extends Omit<TableOptions, "spun"> {
  readonly buffer: SharedArrayBuffer;
}

/** What is kept of an end until it is collected: not its area, whose views are large. */
interface Ended {
  readonly group: Int32Array;
  readonly bytes: number;
}

/** The same, and what they share. */
interface Session extends SharedOptions, TableOptions {
  readonly turns: Turns;
  /** Tells, once an end is collected, that its area is needed by one rank less. */
  readonly ends: FinalizationRegistry<Ended>;
  /** Ends that have a call under way: they are needed, whether or not anybody has a handle on them. */
  readonly busy: Set<Engine>;
  readonly weight: Weight;
}

/**
 * At most for as long as ranks that do the same are apart: with 0.1 ms, calls that hold up the thread added 9 to 13 % to a step of 106
 * meetings, with this 8 %, as ranks do that never sleep.
 */
const SPIN = { most: 2, least: 0.005, retry: 32, looks: 32 } as const;
/** How long calls that wait for nobody may have a thread to themselves, in ms. */
const LONGEST_MS = 100;
const NOT_BLOCKING = cannotBlock(
  `the group must be joined with wait "block": current value is "async"`,
);
/** What a rank says of the room for its sub-group: that another looks for it, or that there is none. */
const [NOT_MINE, NO_ROOM] = [0, -1];
/** How often to look for room: groups that nobody has a handle on give theirs back only once they are collected. */
const MOST_TRIES = 4;

/** Opens one rank's end of a world in shared memory. */
export function sharedEngine(options: SharedOptions, rank: number): Engine {
  const weight = countWeight();
  const ends = new FinalizationRegistry(({ group, bytes }: Ended) => {
    Atomics.sub(group, GROUP.handles, 1);
    weight.remove(bytes);
  });
  const session: Session = {
    ...options,
    turns: countTurns(LONGEST_MS, shortTurn),
    spun: createSpin(SPIN),
    ends,
    busy: new Set(),
    weight,
  };
  return openEnd(session, WORLD, rank);
}

function openEnd(session: Session, offset: number, rank: number): Engine {
  const { buffer, timeoutMs, turns, ends, busy, weight } = session;
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
    const { promise: done, resolve: finish } = deferred<void>();
    last = done;
    const start = (request: Request, owned: boolean) =>
      perform({ number, request, patience: patienceFor(timeoutMs), owned });
    // The caller may write to its array while earlier calls are under way.
    const kept = before && values instanceof Float64Array
      ? { ...request, values: values.slice() }
      : request;
    if (values instanceof Promise) values.catch(() => {}); // Looked at when the call's turn has come.
    busy.add(engine);
    const result = before ? before.then(() => start(kept, kept !== request)) : start(kept, false);
    const leave = () => {
      signal?.removeEventListener("abort", cancel);
      if (last === done) {
        last = null;
        busy.delete(engine);
      }
      finish();
    };
    result.then(leave, leave);
    return result;
  }

  async function perform(call: Call): Promise<readonly Float64Array[]> {
    const brought = table.bring(call);
    const part = brought instanceof Promise ? await brought : brought;
    return await table.drive(call, meet(call, part));
  }

  function* meet(call: Call, part: Part): Steps<readonly Float64Array[]> {
    const { request: { flow }, owned } = call;
    const inPlace = flow.kind === "reduce" && flow.inPlace;
    if ("values" in part && part.length > capacity) {
      // The caller may write to its array meanwhile.
      const own = owned || inPlace ? part.values : part.values.slice();
      return yield* bringInPieces({ call, text: part.text, rank, area, table }, own);
    }
    const given = inPlace && "values" in part ? { rank, values: part.values } : undefined;
    return yield* table.round(call, part, planOf(flow, given));
  }

  /** A call that holds up the thread until it has its result. */
  function meetNow(request: Request, values: () => Float64Array): readonly Float64Array[] {
    if (busy.size > 0) throw busyError(request.name);
    const number = ++calls;
    Atomics.store(area.ranks[rank], RANK.calls, number);
    const broken = table.broken();
    if (broken) throw broken;
    const call = { number, request, patience: patienceFor(timeoutMs), owned: false };
    return table.driveNow(call, meet(call, partOf(request, values)));
  }

  async function divide(call: Call): Promise<Engine> {
    const wishes = await perform(call);
    const members = membersOf(wishes, rank);
    const inWorld = members.map((member) => area.ranks[member][RANK.inWorld]);
    // Whatever other ranks do meanwhile waits for this one, as it does in any call.
    if (weight.isDue()) await weight.collect();
    // The first member finds room for all, and tells where.
    let room = NOT_MINE;
    for (let tries = 1;; tries++) {
      if (members[0] === rank && room <= 0) {
        room = allocate(buffer, inWorld, partCapacity(capacity)) || NO_ROOM;
      }
      const text = `${call.request.name}, where`;
      const told = { values: Float64Array.of(room), length: 1, text };
      const plan = planOf({ kind: "gather" });
      const rooms = await table.drive(call, table.round(call, told, plan));
      if (tries < MOST_TRIES && rooms.some(([room]) => room === NO_ROOM)) await weight.collect();
      else return openEnd(session, checkRoom(rooms[members[0]][0], members), members.indexOf(rank));
    }
  }

  function checkRoom(offset: number, { length }: readonly number[]): number {
    if (offset !== NO_ROOM) return offset;
    throw new RangeError(
      `Cannot split the group as its shared memory has no room for one more of ${length} ranks: ` +
        `${buffer.byteLength} bytes are in use; split less often, or let go of groups that are done with`,
    );
  }

  const engine: Engine = {
    rank,
    worldSize,
    meet: (request) => inLine(request, perform),
    meetNow: session.waiting === "block" ? meetNow : NOT_BLOCKING,
    split: (request) => inLine(request, divide),
  };
  ends.register(engine, { group: area.group, bytes: area.bytes });
  weight.add(area.bytes);
  return engine;
}

/** Tells a world in shared memory that a rank will make no further call, in no group. */
export function leaveShared(
  buffer: SharedArrayBuffer,
  inWorld: number,
  failure?: { readonly cause: unknown },
): void {
  // The world first: whoever makes a sub-group from now on sees it there.
  end(openHead(buffer, WORLD), inWorld);
  for (const { area, rank } of areasOf(buffer, inWorld)) {
    end(area, rank);
    if (failure) {
      const calls = Atomics.load(area.ranks[rank], RANK.calls);
      const { cause } = failure;
      breakDown(area, leftError(rank, area.worldSize, calls, messageOf(cause), cause));
    } else wake(area);
  }
}
