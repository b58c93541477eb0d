/** Moments, normalization and running statistics on Wasm. */

import type { Device, MomentsPass, NormalizePass } from "../../lib/device.ts";
import { momentsWire } from "../../lib/wire.ts";
import type { WasmArray } from "./arrays.ts";
import { type Context, elements, type Operate } from "./context.ts";
import { layoutOf } from "./layout.ts";
import { addressesOf, map, momentsAt, planes, reduce, RELU, workBytes } from "./walks.ts";
import { weightedMoments } from "./weights.ts";

/** Operations of a forward pass. */
export type ForwardOperations = Pick<
  Device<WasmArray>,
  "moments" | "normalize" | "updateRunningStats"
>;

/** Makes the operations of a forward pass. */
export function forwardOperations(operate: Operate): ForwardOperations {
  return {
    moments: (pass) => operate((context) => moments(context, pass)),
    normalize: (pass) => operate((context) => normalize(context, pass)),
    updateRunningStats: ({ running: { runningMean, runningVar }, moments, factor }) =>
      operate((context) => {
        const { arrays, kernels, make, vector } = context;
        const { contents: { length: channels } } = arrays.slot(runningMean, "elements");
        const from = momentsAt(context, moments, channels);
        const oldMean = vector(runningMean, channels);
        const oldVar = vector(runningVar, channels);
        const mean = make(elements(channels, "float32"));
        const variance = make(elements(channels, "float32"));
        const [newMean, newVar] = [mean.slot.address, variance.slot.address];
        kernels.updateRunningStats(from, factor, channels, oldMean, oldVar, newMean, newVar);
        return { runningMean: mean.array, runningVar: variance.array };
      }),
  };
}

function moments(context: Context, { input, weights }: MomentsPass<WasmArray>): WasmArray {
  const { kernels } = context;
  const layout = layoutOf(input);
  if (weights) return weightedMoments(context, input, layout, weights);
  const { batch, channels, count, half, inner, laneInner, period } = layout;
  const x = context.tensor(input, { elements: layout.elements, dtype: input.dtype });
  const parts = context.parts(layout.elements, period || undefined);
  const othersBytes = planes(3, channels, 8);
  const [counts, others, work] = context.areas(
    planes(1, channels, 8),
    othersBytes * (parts.length - 1),
    workBytes(layout) * parts.length,
  );
  const { array, slot: { address } } = context.make({
    kind: momentsWire.name,
    length: momentsWire.length(channels),
  });
  // The first thread writes its mean and m2 where the result is to be.
  reduce(context, layout, parts, [x, 0, 0], 0, work, (thread) => {
    if (thread === 0) return [address + 8, counts];
    const means = others + othersBytes * (thread - 1);
    return [means, means + planes(2, channels, 8)];
  });
  kernels.mergeMoments(counts, others, parts.length - 1, channels, count, address);
  kernels.exactMoments(x, half, batch, channels, inner, laneInner, address);
  return array;
}

function normalize(context: Context, pass: NormalizePass<WasmArray>): WasmArray {
  const { input, affine: { weight, bias, eps }, activation, overwrite } = pass;
  const { data, dtype, format } = input;
  const layout = layoutOf(input);
  const { channels } = layout;
  const like = { elements: layout.elements, dtype };
  const x = context.tensor(input, like);
  const residual = context.ordered(pass.residual, like, format);
  const [moments, mean, variance] = addressesOf(context, pass.statistics, channels);
  const [scale, shift] = [context.vector(weight, channels), context.vector(bias, channels)];
  const { array, slot } = context.makeOver(
    overwrite ? data : null,
    elements(layout.elements, dtype),
  );
  if (activation) context.rectify(activation, dtype);
  const kind = activation ? RELU : 0;
  map(context, layout, [x, residual, 0, slot.address, 0], kind, 3, (kernels, to) => {
    kernels.normalizeCoefficients(moments, mean, variance, eps, scale, shift, channels, to);
  });
  return array;
}
