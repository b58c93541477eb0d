/**
 * Gradient sums and gradients on Wasm.
 *
 * @module
 */

import type { Device, GradientArrays, GradientsPass, SumsPass } from "../../lib/device.ts";
import { sumsWire } from "../../lib/wire.ts";
import { bytesOf, type WasmArray } from "./arrays.ts";
import { addressesOf, laneBytes, planes, spread } from "./channel_operations.ts";
import { inStrips, layoutOf, sameOrder } from "./layout.ts";
import { type Context, elements, grainOf, halfOf, MOST, type Operate } from "./context.ts";
import { reduce, workBytes } from "./reduction.ts";

/** Operations of a backward pass. */
export type GradientOperations = Pick<Device<WasmArray>, "gradientSums" | "gradients">;

/** Makes the operations of a backward pass. */
export function gradientOperations(operate: Operate): GradientOperations {
  return {
    gradientSums: (pass) => operate((context) => gradientSums(context, pass)),
    gradients: (pass) => operate((context) => gradients(context, pass)),
  };
}

function gradientSums(context: Context, pass: SumsPass<WasmArray>): WasmArray {
  const { input, gradOutput, statistics, output } = pass;
  const { kernels } = context;
  const { dtype, format } = input;
  const layout = layoutOf(input);
  const { batch, channels, inner, channelStride, innerStride } = layout;
  const like = { elements: layout.elements, dtype };
  const x = context.tensor(input, like);
  const dy = context.ordered(gradOutput, like, format);
  const gates = context.ordered(output, like, format);
  const half = halfOf(dtype);
  const parts = context.parts(layout.elements, grainOf(layout));
  const sumsBytes = planes(2, channels, 8);
  const [perChannel, perLane, others, work] = context.areas(
    planes(1, channels, 4),
    laneBytes(1, layout),
    sumsBytes * (parts.length - 1),
    workBytes(layout) * parts.length,
  );
  const [moments, means] = addressesOf(context, statistics, channels);
  const { array, slot } = context.make({ kind: sumsWire.name, length: sumsWire.length(channels) });
  const sums = slot.address;
  kernels.means(moments, means, channels, perChannel);
  const his = spread(context, 1, layout, { perChannel, perLane });
  reduce(context, layout, parts, [x, dy, gates, half], his, work, (thread) => {
    return [thread === 0 ? sums : others + sumsBytes * (thread - 1), 0];
  });
  kernels.mergeSums(others, parts.length - 1, channels, moments, sums);
  kernels.exactSums(
    x,
    dy,
    gates,
    half,
    batch,
    channels,
    inner,
    channelStride,
    innerStride,
    moments,
    means,
    sums,
  );
  return array;
}

function gradients(context: Context, pass: GradientsPass<WasmArray>): GradientArrays<WasmArray> {
  const { input, gradOutput, statistics, output, sums: { local, total }, affine } = pass;
  const { weight, bias, eps } = affine;
  const { residualFormat, overwrite } = pass;
  const { kernels } = context;
  const { shape, dtype, format } = input;
  const layout = layoutOf(input);
  const { channels, inner, period } = layout;
  const like = { elements: layout.elements, dtype };
  const given = context.tensor(input, like);
  const dy = context.ordered(gradOutput, like, format);
  const gates = context.ordered(output, like, format);
  const half = halfOf(dtype);
  const parts = context.parts(layout.elements, grainOf(layout));
  const scratchBytes = planes(4, MOST, 4);
  const [perChannel, perLane, scratch] = context.areas(
    planes(4, channels, 4),
    laneBytes(4, layout),
    half * scratchBytes * parts.length,
  );
  const x = total === null ? 0 : given;
  const weights = context.vector(weight, channels);
  context.vector(bias, channels);
  const [moments, means, variances] = addressesOf(context, statistics, channels);
  const sums = context.statistic(local, sumsWire, channels);
  const totals = context.statistic(total, sumsWire, channels);
  const contents = elements(layout.elements, dtype);
  const gradInput = context.makeOver(overwrite ? gradOutput.data : null, contents);
  const gradWeight = weight === null ? null : context.make(elements(channels, "float32"));
  const gradBias = bias === null ? null : context.make(elements(channels, "float32"));
  const gradResidual = residualFormat === undefined ? null : context.make(contents);

  const toWeight = gradWeight ? gradWeight.slot.address : 0;
  const toBias = gradBias ? gradBias.slot.address : 0;
  kernels.gradientCoefficients(
    moments,
    means,
    variances,
    eps,
    sums,
    totals,
    weights,
    channels,
    perChannel,
    toWeight,
    toBias,
  );
  const coefficients = spread(context, 4, layout, { perChannel, perLane });
  const dx = gradInput.slot.address;
  // The loop writes in the input's order; a residual in the other one is transposed afterwards.
  const direct = residualFormat === undefined || sameOrder(shape, residualFormat, format);
  const target = gradResidual ? gradResidual.slot.address : 0;
  const passed = direct ? target : context.borrow(bytesOf(contents));
  const strips = inStrips(layout, 3);
  context.run("gradients", parts, ({ from, to }, thread) => [
    x,
    dy,
    gates,
    dx,
    passed,
    half,
    strips,
    channels,
    inner,
    period ?? 0,
    from,
    to,
    coefficients,
    scratch + thread * scratchBytes,
  ]);
  if (residualFormat !== undefined && !direct) {
    context.copy({ shape, dtype, format }, passed, target, residualFormat);
  }
  return {
    gradInput: gradInput.array,
    gradWeight: gradWeight && gradWeight.array,
    gradBias: gradBias && gradBias.array,
    gradResidual: gradResidual && gradResidual.array,
  };
}
