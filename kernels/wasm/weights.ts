/** Passes whose examples have weights, on Wasm. */

import { extents, type Tensor } from "../../lib/tensor.ts";
import { weightedMomentsWire } from "../../lib/wire.ts";
import type { WasmArray } from "./arrays.ts";
import type { Context, Kernels } from "./context.ts";
import { MOST } from "./context.ts";
import { halfOf, type Layout } from "./layout.ts";
import { planes } from "./walks.ts";

/** Bytes of a channel's record, and elements of a run: those of `assembly/weighted_moments.ts`. */
const RECORD = 80;
const RUN = 1024;

/** Weights of a pass as kernels take them: as float32, one for each place. */
interface Weights {
  /** Bytes that they need where they do not lie so already. */
  readonly bytes: number;
  /** Makes them there, and says where they are. */
  readonly write: (to: number) => number;
}

/** Finds the weights of a pass. */
function weightsOf(
  { kernels, tensor }: Context,
  { shape }: Tensor<WasmArray>,
  weights: Tensor<WasmArray>,
): Weights {
  const { batch, inner } = extents(shape);
  const perSample = weights.shape.length === 2;
  const elements = perSample ? batch : batch * inner;
  const at = tensor(weights, { elements, dtype: weights.dtype });
  const half = halfOf(weights.dtype);
  const direct = half === 0 && (!perSample || inner === 1);
  return {
    bytes: direct ? 0 : planes(1, batch * inner, 4),
    write: (to) => {
      if (direct) return at;
      kernels.spreadWeights(at, half, perSample ? 1 : 0, batch, inner, to);
      return to;
    },
  };
}

/** Where weights lie for the length of the operation, as kernels take them; 0 where there are none. */
export function weightsIn(
  context: Context,
  input: Tensor<WasmArray>,
  given: Tensor<WasmArray> | undefined,
): number {
  if (given === undefined) return 0;
  const { bytes, write } = weightsOf(context, input, given);
  return write(bytes > 0 ? context.borrow(bytes) : 0);
}

/** Whether neighbours in memory are neighbouring channels; whole samples, or else places, are what threads share. */
function rowsOf({ batch, channels, inner, laneInner }: Layout) {
  const last = laneInner === 1 && channels > 1;
  return last
    ? { last: 1, rows: batch * inner, row: channels }
    : { last: 0, rows: batch, row: channels * inner };
}

/** Moments by weights. */
export function weightedMoments(
  context: Context,
  input: Tensor<WasmArray>,
  layout: Layout,
  given: Tensor<WasmArray>,
): WasmArray {
  const { areas, kernels, make, parts: partsOf, run } = context;
  const { batch, channels, elements, half, inner } = layout;
  const { last, row } = rowsOf(layout);
  const x = context.tensor(input, { elements, dtype: input.dtype });
  const weights = weightsOf(context, input, given);
  const parts = partsOf(elements, row || undefined);
  const lanes = Math.ceil(channels / 4) * 4;
  const workBytes = RECORD * lanes + planes(1, MOST, 4) + 8 * Math.ceil(inner / RUN);
  const work64 = Math.ceil(workBytes / 64) * 64;
  const othersBytes = planes(3, channels, 8);
  const [expanded, counts, others, work] = areas(
    weights.bytes,
    planes(1, channels, 8),
    othersBytes * (parts.length - 1),
    work64 * parts.length,
  );
  const { name: kind } = weightedMomentsWire;
  const { array, slot: { address } } = make({ kind, length: weightedMomentsWire.length(channels) });
  const own = address + 8; // As other moments begin.
  const w = weights.write(expanded);
  kernels.weigh(w, batch * inner, address);
  run("reduceWeighted", parts, ({ from, to }, thread) => {
    const means = others + othersBytes * (thread - 1);
    const [result, countsOf] = thread === 0
      ? [own + 8, counts]
      : [means, means + planes(2, channels, 8)];
    const room = work + thread * work64;
    const [first, end] = row > 0 ? [from / row, to / row] : [0, 0];
    return [x, half, last, channels, inner, first, end, w, result, countsOf, room];
  });
  const count = sumAt(context, own);
  kernels.mergeMoments(counts, others, parts.length - 1, channels, count, own);
  kernels.exactWeighted(x, half, last, batch, channels, inner, w, own);
  return array;
}

/** Sum of the weights, which is the count of the moments. */
function sumAt({ memory }: Context, address: number): number {
  return new Float64Array(memory.buffer(), address, 1)[0];
}

/** Computes (dx, dresidual) of (x, dy, output) by weights. */
export function mapWeighted(
  context: Context,
  input: Tensor<WasmArray>,
  layout: Layout,
  given: Tensor<WasmArray>,
  [x, dy, gate, dx, passed]: readonly [number, number, number, number, number],
  writeCoefficients: (kernels: Kernels, perChannel: number) => void,
): void {
  const { areas, kernels, parts: partsOf, run } = context;
  const { channels, elements, half, inner } = layout;
  if (elements === 0) return writeNothing(context, channels, writeCoefficients);
  const { last, row } = rowsOf(layout);
  const weights = weightsOf(context, input, given);
  const parts = partsOf(elements, row);
  const room = half * planes(4, MOST, 4);
  const [expanded, perChannel, scratch] = areas(
    weights.bytes,
    planes(4, channels, 4),
    room * parts.length,
  );
  const w = weights.write(expanded);
  writeCoefficients(kernels, perChannel);
  run("mapWeighted", parts, ({ from, to }, thread) => {
    const own = scratch + thread * room;
    const [first, end] = [from / row, to / row];
    return [x, dy, gate, dx, passed, half, last, channels, inner, first, end, w, perChannel, own];
  });
}

/** Gradients of the parameters are written along with the coefficients. */
function writeNothing(
  { areas, kernels }: Context,
  channels: number,
  writeCoefficients: (kernels: Kernels, perChannel: number) => void,
): void {
  const [perChannel] = areas(planes(4, channels, 4));
  writeCoefficients(kernels, perChannel);
}
