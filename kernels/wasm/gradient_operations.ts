/**
 * Gradient sums and gradients on Wasm.
 *
 * @module
 */

import type {
  Affine,
  FusedGradientArrays,
  GradientSums,
  Prologue,
  Statistics,
} from "../../lib/device.ts";
import type { Tensor } from "../../lib/tensor.ts";
import { bytesOf, type WasmArray } from "./arrays.ts";
import { addressesOf, laneBytes, planes, spread } from "./channel_operations.ts";
import { inStrips, layoutOf, sameOrder } from "./layout.ts";
import { type Bench, elements, grainOf, halfOf, MOST, type Operate, RECORD } from "./workbench.ts";

type Input = Tensor<WasmArray>;

/** Operations of a backward pass; both take a prologue too. */
export interface GradientOperations {
  readonly gradientSums: (
    input: Input,
    gradOutput: Input,
    statistics: Statistics<WasmArray>,
    prologue?: Prologue<WasmArray>,
  ) => WasmArray;
  readonly gradients: (
    input: Input,
    gradOutput: Input,
    statistics: Statistics<WasmArray>,
    sums: GradientSums<WasmArray>,
    affine: Affine<WasmArray>,
    prologue?: Prologue<WasmArray>,
  ) => FusedGradientArrays<WasmArray>;
}

const PLAIN: Prologue<WasmArray> = { output: null, residualFormat: null, overwrite: false };

/** Makes the operations of a backward pass. */
export function gradientOperations(operate: Operate): GradientOperations {
  return Object.freeze<GradientOperations>({
    gradientSums: (input, gradOutput, statistics, { output } = PLAIN) =>
      operate((bench) => gradientSums(bench, input, gradOutput, statistics, output)),
    gradients: (input, gradOutput, statistics, sums, affine, prologue = PLAIN) =>
      operate((bench) => gradients(bench, input, gradOutput, statistics, sums, affine, prologue)),
  });
}

function gradientSums(
  bench: Bench,
  input: Input,
  gradOutput: Input,
  statistics: Statistics<WasmArray>,
  output: Input | null,
): WasmArray {
  const { address, kernels } = bench;
  const { data, dtype, format } = input;
  const layout = layoutOf(input);
  const { batch, channels, inner, period, laneInner, channelStride, innerStride } = layout;
  const x = address(data);
  const dy = bench.ordered(gradOutput, format);
  const gates = bench.ordered(output, format);
  const half = halfOf(dtype);
  const parts = bench.parts(layout.elements, grainOf(layout));
  const workBytes = (period === null ? channels * RECORD : planes(6, period, 4)) +
    planes(3, MOST, 4);
  const sumsBytes = planes(2, channels, 8);
  const [perChannel, perLane, others, work] = bench.areas(
    planes(1, channels, 4),
    laneBytes(1, layout),
    sumsBytes * (parts.length - 1),
    workBytes * parts.length,
  );
  const [moments, means] = addressesOf(bench, statistics);
  const { array, slot } = bench.make({ kind: "sums", length: 2 * channels });
  const sums = slot.address;
  const sumsOf = (thread: number) => thread === 0 ? sums : others + sumsBytes * (thread - 1);
  kernels.means(moments, means, channels, perChannel);
  const his = spread(bench, 1, layout, { perChannel, perLane });
  if (period === null) {
    bench.run("sumsOfRows", parts, ({ from, to }, thread) => [
      x,
      dy,
      gates,
      half,
      channels,
      inner,
      from,
      to,
      his,
      sumsOf(thread),
      work + thread * workBytes,
    ]);
  } else {
    const strips = inStrips(layout, 2);
    bench.run("sumsOfColumns", parts, ({ from, to }, thread) => [
      x,
      dy,
      gates,
      half,
      strips,
      channels,
      laneInner,
      period,
      from,
      to,
      his,
      sumsOf(thread),
      work + thread * workBytes,
    ]);
  }
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

function gradients(
  bench: Bench,
  input: Input,
  gradOutput: Input,
  statistics: Statistics<WasmArray>,
  { local, total }: GradientSums<WasmArray>,
  { weight, bias, eps }: Affine<WasmArray>,
  { output, residualFormat, overwrite }: Prologue<WasmArray>,
): FusedGradientArrays<WasmArray> {
  const { arrays, address, kernels } = bench;
  const { data, shape, dtype, format } = input;
  const layout = layoutOf(input);
  const { channels, inner, period } = layout;
  const dy = bench.ordered(gradOutput, format);
  const gates = bench.ordered(output, format);
  const half = halfOf(dtype);
  const parts = bench.parts(layout.elements, grainOf(layout));
  const scratchBytes = planes(4, MOST, 4);
  const [perChannel, perLane, scratch] = bench.areas(
    planes(4, channels, 4),
    laneBytes(4, layout),
    half * scratchBytes * parts.length,
  );
  const [x, weights] = [total === null ? 0 : address(data), address(weight)];
  const [moments, means, variances] = addressesOf(bench, statistics);
  const sums = arrays.slot(local, "sums").address;
  const totals = total === null ? 0 : arrays.slot(total, "sums").address;
  const contents = elements(layout.elements, dtype);
  const gradInput = bench.makeOver(overwrite ? gradOutput.data : null, contents);
  const gradWeight = weight === null ? null : bench.make(elements(channels, "float32"));
  const gradBias = bias === null ? null : bench.make(elements(channels, "float32"));
  const gradResidual = residualFormat === null ? null : bench.make(contents);

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
    gradWeight ? gradWeight.slot.address : 0,
    gradBias ? gradBias.slot.address : 0,
  );
  const coefficients = spread(bench, 4, layout, { perChannel, perLane });
  const dx = gradInput.slot.address;
  // The loop writes in the input's order; a residual in the other one is transposed afterwards.
  const direct = residualFormat === null || sameOrder(shape, residualFormat, format);
  const target = gradResidual ? gradResidual.slot.address : 0;
  const passed = direct ? target : bench.borrow(bytesOf(contents));
  if (period === null) {
    bench.run("gradientsOfRows", parts, ({ from, to }, thread) => [
      x,
      dy,
      gates,
      dx,
      passed,
      half,
      channels,
      inner,
      from,
      to,
      coefficients,
      scratch + thread * scratchBytes,
    ]);
  } else {
    const strips = inStrips(layout, 3);
    bench.run("gradientsOfColumns", parts, ({ from, to }, thread) => [
      x,
      dy,
      gates,
      dx,
      passed,
      half,
      strips,
      period,
      from,
      to,
      coefficients,
      scratch + thread * scratchBytes,
    ]);
  }
  if (residualFormat !== null && !direct) {
    bench.copy({ shape, dtype, format }, passed, target, residualFormat);
  }
  return {
    gradInput: gradInput.array,
    gradWeight: gradWeight && gradWeight.array,
    gradBias: gradBias && gradBias.array,
    gradResidual: gradResidual && gradResidual.array,
  };
}
