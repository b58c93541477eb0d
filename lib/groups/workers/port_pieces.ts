/**
 * Long arrays over ports: moved piece by piece, so that no rank ever holds those of all. What is alive is at most 4 times
 * the arrays; of 6 ranks, whose threads' collectors come late to pieces that have been read, 6.7 were measured, and 3.9
 * where they came after each piece.
 */

import type { Combine } from "../../collectives.ts";
import { checkTotal, foldInto, shareOf } from "../contributions.ts";
import { messageOf } from "../failures.ts";
import type { LocalFlow } from "../flow.ts";

/** Moves values among the ranks, all of which do the same. */
export type Move = (flow: LocalFlow, values: Float64Array) => Promise<readonly Float64Array[]>;

/** A reduction of what is too long to be gathered. */
export interface LongReduction {
  readonly rank: number;
  readonly worldSize: number;
  readonly capacity: number;
  readonly combine: Combine;
  readonly move: Move;
  /** The error where combining failed on a rank; without a reason that of this rank's own failure. */
  readonly fail: (cause: unknown, reason?: string) => Error;
}

type Failure = { readonly cause: unknown } | undefined;

/** Where a piece that travels says whether combining has failed. */
const [INTACT, FAILED] = [0, 1];
/** Code units of a reason that travel. */
const LONGEST_REASON = 500;
const NOTHING = new Float64Array(0);

/** Reduces an array. */
export async function reduceInPieces(
  reduction: LongReduction,
  own: Float64Array,
): Promise<Float64Array> {
  const reduce = reduction.combine.elementwise ? reduceByShares : foldInTurn;
  return await reduce(reduction, own);
}

/** Each rank adds up its share of a piece, element by element in rank order. */
async function reduceByShares(reduction: LongReduction, own: Float64Array): Promise<Float64Array> {
  const { rank, worldSize, capacity, combine, move } = reduction;
  for (let at = 0; at < own.length; at += capacity) {
    const piece = own.subarray(at, at + capacity);
    const shares = await move({ kind: "scatter" }, piece);
    const [from, to] = shareOf(piece.length, rank, worldSize);
    const total = new Float64Array(1 + to - from);
    const failure = failureOf(() => to > from && foldInto(total.subarray(1), shares, combine));
    if (failure) total[0] = FAILED;
    const totals = await move({ kind: "gather" }, total);
    if (totals.some(([status]) => status === FAILED)) throw await refuse(reduction, failure);
    totals.forEach((values, other) => {
      piece.set(values.subarray(1), shareOf(piece.length, other, worldSize)[0]);
    });
  }
  return own;
}

/** One rank after the other folds its values to what has come from those before it, and hands on the total. */
async function foldInTurn(reduction: LongReduction, own: Float64Array): Promise<Float64Array> {
  const { rank, worldSize, combine } = reduction;
  const { length } = own;
  let total = own;
  let failure: Failure;
  let isIntact = true;
  for (let to = 1; to < worldSize; to++) {
    const flow = { kind: "send", from: to - 1, to } as const;
    const incoming = rank === to ? new Float64Array(length) : null;
    const intact = await hand(reduction, flow, isIntact ? total : null, incoming, length);
    if (incoming === null) continue;
    isIntact = intact;
    if (!isIntact) continue;
    failure = failureOf(() => total = checkTotal(combine(incoming, own), length, combine));
    isIntact = failure === undefined;
  }
  const flow = { kind: "broadcast", root: worldSize - 1 } as const;
  const isSound = await hand(reduction, flow, isIntact ? total : null, own, length);
  if (!isSound) throw await refuse(reduction, failure);
  return own;
}

/** Moves one rank's values, none where it has none to be proud of; returns whether they were sound. */
async function hand(
  { rank, capacity, move }: LongReduction,
  flow: Extract<LocalFlow, { readonly kind: "send" | "broadcast" }>,
  values: Float64Array | null,
  room: Float64Array | null,
  length: number,
): Promise<boolean> {
  const sends = rank === (flow.kind === "send" ? flow.from : flow.root);
  let isIntact = true;
  for (let at = 0; at < length; at += capacity) {
    const count = Math.min(capacity, length - at);
    const piece = sends ? new Float64Array(1 + count) : NOTHING;
    if (sends && values) piece.set(values.subarray(at, at + count), 1);
    if (sends && !values) piece[0] = FAILED;
    const [moved] = await move(flow, piece);
    if (!moved || !room) continue;
    if (moved[0] === INTACT) room.set(moved.subarray(1), at);
    else isIntact = false;
  }
  return isIntact;
}

/** All ranks hear why combining failed, and say the same. */
async function refuse({ move, fail }: LongReduction, failure: Failure): Promise<Error> {
  const own = failure ? messageOf(failure.cause).slice(0, LONGEST_REASON) : "";
  const codes = Float64Array.from(own, (unit) => unit.charCodeAt(0));
  const all = await move({ kind: "gather" }, codes);
  const [reason] = all.filter(({ length }) => length > 0);
  return fail(failure?.cause, String.fromCharCode(...reason));
}

function failureOf(body: () => void): Failure {
  try {
    body();
  } catch (cause) {
    return { cause };
  }
}
