/**
 * Arrays that are longer than the ranks' desks: brought piece by piece, so that no rank ever holds those of all.
 */

import type { Combine } from "../../collectives.ts";
import { checkTotal, fold, foldInto, foldsAlike, shareOf } from "../contributions.ts";
import type { Flow } from "../engine.ts";
import { combineError, messageOf } from "../failures.ts";
import type { Area } from "./area.ts";
import type { Call, Part } from "./desks.ts";
import type { Laid, Plan, Steps, Table } from "./table.ts";

/** A call whose values are too long. */
export interface Long {
  readonly call: Call;
  /** What all ranks must call alike. */
  readonly text: string;
  readonly rank: number;
  readonly area: Area;
  readonly table: Pick<Table, "round">;
}

const NOTHING = new Float64Array(0);

/** Values that a rank gives up: the total takes their place. */
export interface Given {
  readonly rank: number;
  readonly values: Float64Array;
}

/** What becomes of values that fit on the desks. */
export function planOf(flow: Flow, given?: Given): Plan<readonly Float64Array[]> {
  switch (flow.kind) {
    case "reduce": {
      const { combine } = flow;
      const all = ({ desks, length }: Laid): Float64Array[] =>
        desks.map(({ values }) => values.subarray(0, length));
      return {
        combine: (laid) => laid.total.set(fold(all(laid), combine)),
        combineAlone: foldsAlike(combine)
          ? (laid) => {
            const total = given?.values ?? new Float64Array(laid.length);
            const brought = all(laid);
            // Its own array has not been to another core; of the first two each number is read before it is replaced.
            if (given && given.rank < 2) brought[given.rank] = total;
            foldInto(total, brought, combine);
            return [total];
          }
          : undefined,
        take: ({ length, total }) => {
          if (!given) return [total.slice(0, length)];
          given.values.set(total.subarray(0, length));
          return [given.values];
        },
      };
    }
    case "gather":
      return { take: ({ desks, length }) => desks.map(({ values }) => values.slice(0, length)) };
    case "broadcast":
      return { take: ({ desks, length }) => [desks[flow.root].values.slice(0, length)] };
    case "barrier":
      return { take: () => [] };
  }
}

/** Brings values piece by piece. */
export function* bringInPieces(long: Long, own: Float64Array): Steps<readonly Float64Array[]> {
  const { call, text, rank, area: { worldSize }, table } = long;
  const { flow } = call.request;
  const { length } = own;
  // First of all whether they are all at the same.
  yield* table.round(call, { values: NOTHING, length, text }, planOf({ kind: "barrier" }));
  switch (flow.kind) {
    case "reduce":
      if (flow.combine.elementwise) return [yield* reduceByShares(long, own, flow.combine)];
      return [yield* foldInTurn(long, own, flow.combine)];
    case "gather": {
      const all = Array.from({ length: worldSize }, () => new Float64Array(length));
      yield* pass(long, own, length, (pieces, at) => {
        pieces.forEach((piece, other) => all[other].set(piece, at));
      });
      return all;
    }
    case "broadcast":
      yield* hand(long, flow.root, own, rank === flow.root ? null : own);
      return [own];
    case "barrier":
      return [];
  }
}

/**
 * Each rank adds up its share of a piece, element by element in rank order, and all take the whole piece in the next
 * round. What was brought is written over by what has come of it.
 */
function* reduceByShares(long: Long, own: Float64Array, combine: Combine): Steps<Float64Array> {
  const { call, text, rank, area: { worldSize, capacity }, table } = long;
  const { length } = own;
  const pieceAt = (i: number) => own.subarray(i * capacity, (i + 1) * capacity);
  const refuse = refusalOf(long);
  let failure: Failure;
  let before: Float64Array = NOTHING;
  for (let i = 0; (i - 1) * capacity < length; i++) {
    const piece = pieceAt(i);
    const part = failure ?? { values: piece, length, text: `${text}, in pieces` };
    yield* table.round(call, part, {
      refuse,
      take: ({ desks, total }) => {
        if (i > 0) pieceAt(i - 1).set(before.subarray(0, pieceAt(i - 1).length));
        before = total;
        const [from, to] = shareOf(piece.length, rank, worldSize);
        if (from === to) return;
        const shares = desks.map(({ values }) => values.subarray(from, to));
        failure = failureOf(() => foldInto(total.subarray(from, to), shares, combine));
      },
    });
  }
  return own;
}

/**
 * One rank after the other folds its values to what has come from those before it, and hands on the total: no rank has
 * more than its own, what came, and what has come of them.
 */
function* foldInTurn(long: Long, own: Float64Array, combine: Combine): Steps<Float64Array> {
  const { rank, area: { worldSize } } = long;
  const { length } = own;
  let total = own;
  let failure: Failure;
  for (let receiver = 1; receiver < worldSize; receiver++) {
    const incoming = rank === receiver ? new Float64Array(length) : null;
    yield* hand(long, receiver - 1, total, incoming, failure);
    if (incoming === null) continue;
    failure = failureOf(() => total = checkTotal(combine(incoming, own), length, combine));
  }
  // What was brought is written over by what has come of it.
  yield* hand(long, worldSize - 1, total, own, failure);
  return own;
}

/** One rank's values go to all that have room for them. */
function* hand(
  long: Long,
  sender: number,
  values: Float64Array,
  room: Float64Array | null,
  failure?: Failure,
): Steps<void> {
  const { length } = values;
  yield* pass(long, long.rank === sender ? values : NOTHING, length, (pieces, at) => {
    room?.set(pieces[sender], at);
  }, failure);
}

/** Brings all pieces in turn, and takes in those of all ranks. */
function* pass(
  long: Long,
  values: Float64Array,
  length: number,
  take: (pieces: readonly Float64Array[], at: number) => void,
  failure?: Failure,
): Steps<void> {
  const { call, text, area: { capacity }, table } = long;
  const refuse = refusalOf(long);
  for (let at = 0; at < length; at += capacity) {
    const piece = values.subarray(at, at + capacity);
    const part = failure ?? { values: piece, length, text: `${text}, in pieces` };
    yield* table.round(call, part, {
      refuse,
      take: ({ desks }) => {
        const count = Math.min(capacity, length - at);
        take(desks.map(({ values }) => values.subarray(0, count)), at);
      },
    });
  }
}

/** A combining that failed, as the part of the next round: so all ranks learn of it. */
type Failure = Extract<Part, { readonly cause: unknown }> | undefined;

function failureOf(body: () => void): Failure {
  try {
    body();
  } catch (cause) {
    return { cause, text: messageOf(cause) };
  }
}

function refusalOf({ call, text, area: { worldSize } }: Long): Plan<unknown>["refuse"] {
  return (sayings, cause) => {
    const { text: reason } = sayings.find(({ failed }) => failed)!;
    return combineError(call.number, text, worldSize, reason, cause);
  };
}
