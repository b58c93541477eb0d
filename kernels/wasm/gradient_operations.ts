/** Gradient sums and gradients on Wasm. */

import type { Device, GradientArrays, GradientsPass, SumsPass } from "../../lib/device.ts";
import { sumsWire } from "../../lib/wire.ts";
import { bytesOf, type WasmArray } from "./arrays.ts";
import { type Context, elements, type Kernels, type Operate } from "./context.ts";
import { layoutOf, sameOrder } from "./layout.ts";
import { addressesOf, BACK, laneBytes, map, planes, reduce, spread, workBytes } from "./walks.ts";
import { mapWeighted, weightsIn } from "./weights.ts";

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
  const { exactSums } = kernels;
  const { dtype, format } = input;
  const layout = layoutOf(input);
  const { batch, channels, half, inner, laneInner, period } = layout;
  const like = { elements: layout.elements, dtype };
  const x = context.tensor(input, like);
  const dy = context.ordered(gradOutput, like, format);
  const gates = context.gate(output, like, format);
  const weights = weightsIn(context, input, pass.weights);
  const parts = context.parts(layout.elements, period || undefined);
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
  const his = spread(kernels, 1, layout, perChannel, perLane);
  reduce(context, layout, parts, [x, dy, gates], his, work, (thread) => {
    return [thread === 0 ? sums : others + sumsBytes * (thread - 1), 0];
  }, weights);
  kernels.mergeSums(others, parts.length - 1, channels, moments, sums);
  exactSums(x, dy, gates, half, batch, channels, inner, laneInner, moments, means, sums, weights);
  return array;
}

function gradients(context: Context, pass: GradientsPass<WasmArray>): GradientArrays<WasmArray> {
  const { input, gradOutput, output, sums, affine: { weight, bias, eps } } = pass;
  const { residualFormat, overwrite, weights } = pass;
  const { shape, dtype, format } = input;
  const layout = layoutOf(input);
  const { channels } = layout;
  const like = { elements: layout.elements, dtype };
  const x = context.tensor(input, like);
  const dy = context.ordered(gradOutput, like, format);
  const gates = context.gate(output, like, format);
  const scale = context.vector(weight, channels);
  context.vector(bias, channels);
  const [moments, mean, variance] = addressesOf(context, pass.statistics, channels);
  const sumsAt = (array: WasmArray | null) =>
    context.exact
      ? context.exact.sumsAt(context, array, channels, moments)
      : context.statistic(array, sumsWire, channels);
  const local = sumsAt(sums.local);
  const total = sums.total === sums.local ? local : sumsAt(sums.total);
  const contents = elements(layout.elements, dtype);
  const gradInput = context.makeOver(overwrite ? gradOutput.data : null, contents);
  const vectorOf = (of: WasmArray | null) => of && context.make(elements(channels, "float32"));
  const [gradWeight, gradBias] = [vectorOf(weight), vectorOf(bias)];
  const gradResidual = residualFormat === undefined ? null : context.make(contents);

  // The loop writes in the input's order; a residual in the other one is transposed afterwards.
  const direct = residualFormat === undefined || sameOrder(shape, residualFormat, format);
  const target = gradResidual?.slot.address ?? 0;
  const passed = direct ? target : context.borrow(bytesOf(contents));
  const dx = gradInput.slot.address;
  const [dw, db] = [gradWeight?.slot.address ?? 0, gradBias?.slot.address ?? 0];
  const isGroup = context.exact !== undefined && total !== 0;
  const groupWeight = isGroup ? vectorOf(weight) : null;
  const groupBias = isGroup ? vectorOf(bias) : null;
  const [gw, gb] = [groupWeight?.slot.address ?? 0, groupBias?.slot.address ?? 0];
  const coefficients = ({ copy, gradientCoefficients: write }: Kernels, to: number) => {
    if (isGroup && total !== local) {
      write(moments, mean, variance, eps, total, total, scale, channels, to, gw, gb);
    }
    write(moments, mean, variance, eps, local, total, scale, channels, to, dw, db);
    // Those of a group of one rank are its own.
    if (isGroup && total === local) {
      for (const [own, group] of [[dw, gw], [db, gb]]) if (own) copy(own, group, 0, 0, channels);
    }
  };
  if (weights && total) {
    mapWeighted(context, input, layout, weights, [x, dy, gates, dx, passed], coefficients);
  } else map(context, layout, [total && x, dy, gates, dx, passed], BACK, 4, coefficients);
  if (residualFormat !== undefined && !direct) {
    context.copy({ shape, dtype, format }, passed, target, residualFormat);
  }
  const results = {
    gradInput: gradInput.array,
    gradWeight: gradWeight && gradWeight.array,
    gradBias: gradBias && gradBias.array,
    gradResidual: gradResidual && gradResidual.array,
  };
  if (!isGroup) return results;
  const [ofWeight, ofBias] = [groupWeight && groupWeight.array, groupBias && groupBias.array];
  return { ...results, groupWeight: ofWeight, groupBias: ofBias };
}
