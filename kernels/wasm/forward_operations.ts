/**
 * Moments, normalization and running statistics on Wasm.
 *
 * @module
 */

import type { Device, MomentsPass, NormalizePass } from "../../lib/device.ts";
import { momentsWire } from "../../lib/wire.ts";
import type { WasmArray } from "./arrays.ts";
import { addressesOf, laneBytes, planes, spread } from "./channel_operations.ts";
import { inStrips, layoutOf } from "./layout.ts";
import { type Context, elements, grainOf, halfOf, MOST, type Operate } from "./context.ts";
import { reduce, workBytes } from "./reduction.ts";

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
      operate(({ arrays, kernels, make, statistic, vector }) => {
        const { contents: { length: channels } } = arrays.slot(runningMean, "elements");
        const from = statistic(moments, momentsWire, channels);
        const [oldMean, oldVar] = [vector(runningMean, channels), vector(runningVar, channels)];
        const mean = make(elements(channels, "float32"));
        const variance = make(elements(channels, "float32"));
        const results = [mean.slot.address, variance.slot.address];
        kernels.updateRunningStats(from, factor, channels, oldMean, oldVar, ...results);
        return { runningMean: mean.array, runningVar: variance.array };
      }),
  };
}

function moments(context: Context, { input }: MomentsPass<WasmArray>): WasmArray {
  const { kernels } = context;
  const { dtype } = input;
  const layout = layoutOf(input);
  const { batch, channels, inner, count, channelStride, innerStride } = layout;
  const x = context.tensor(input, { elements: layout.elements, dtype });
  const half = halfOf(dtype);
  const parts = context.parts(layout.elements, grainOf(layout));
  const [counts, others, work] = context.areas(
    planes(1, channels, 8),
    planes(3, channels, 8) * (parts.length - 1),
    workBytes(layout) * parts.length,
  );
  const { array, slot } = context.make({
    kind: momentsWire.name,
    length: momentsWire.length(channels),
  });
  // The first thread writes its mean and m2 where the result is to be.
  reduce(context, layout, parts, [x, 0, 0, half], 0, work, (thread) => {
    if (thread === 0) return [slot.address + 8, counts];
    const means = others + planes(3, channels, 8) * (thread - 1);
    return [means, means + planes(2, channels, 8)];
  });
  kernels.mergeMoments(counts, others, parts.length - 1, channels, count, slot.address);
  kernels.exactMoments(x, half, batch, channels, inner, channelStride, innerStride, slot.address);
  return array;
}

function normalize(context: Context, pass: NormalizePass<WasmArray>): WasmArray {
  const { input, statistics, affine: { weight, bias, eps }, residual, activation, overwrite } =
    pass;
  const { kernels } = context;
  const { data, dtype, format } = input;
  const relu = Number(activation === "relu");
  const layout = layoutOf(input);
  const { channels, inner, period } = layout;
  const like = { elements: layout.elements, dtype };
  const x = context.tensor(input, like);
  const added = context.ordered(residual, like, format);
  const half = halfOf(dtype);
  const parts = context.parts(layout.elements, grainOf(layout));
  const scratchBytes = planes(2, MOST, 4);
  const [perChannel, perLane, scratch] = context.areas(
    planes(3, channels, 4),
    laneBytes(3, layout),
    half * scratchBytes * parts.length,
  );
  const [moments, means, variances] = addressesOf(context, statistics, channels);
  const [weights, biases] = [context.vector(weight, channels), context.vector(bias, channels)];
  const { array, slot } = context.makeOver(
    overwrite ? data : null,
    elements(layout.elements, dtype),
  );
  kernels.normalizeCoefficients(
    moments,
    means,
    variances,
    eps,
    weights,
    biases,
    channels,
    perChannel,
  );
  const coefficients = spread(context, 3, layout, { perChannel, perLane });
  const y = slot.address;
  const strips = inStrips(layout, 2);
  context.run("normalize", parts, ({ from, to }, thread) => [
    x,
    added,
    y,
    half,
    strips,
    channels,
    inner,
    period ?? 0,
    from,
    to,
    coefficients,
    relu,
    scratch + thread * scratchBytes,
  ]);
  return array;
}
