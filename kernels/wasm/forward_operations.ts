/**
 * Moments, normalization and running statistics on Wasm.
 *
 * @module
 */

import type { Affine, Device, Epilogue, Statistics } from "../../lib/device.ts";
import type { Tensor } from "../../lib/tensor.ts";
import type { WasmArray } from "./arrays.ts";
import { addressesOf, laneBytes, planes, spread } from "./channel_operations.ts";
import { inStrips, layoutOf } from "./layout.ts";
import { type Bench, elements, grainOf, halfOf, MOST, type Operate, RECORD } from "./workbench.ts";

type Input = Tensor<WasmArray>;

/** Operations of a forward pass; `normalize` takes an epilogue too. */
export interface ForwardOperations
  extends Pick<Device<WasmArray>, "moments" | "updateRunningStats"> {
  readonly normalize: (
    input: Input,
    statistics: Statistics<WasmArray>,
    affine: Affine<WasmArray>,
    epilogue?: Epilogue<WasmArray>,
  ) => WasmArray;
}

const PLAIN: Epilogue<WasmArray> = { residual: null, relu: false, overwrite: false };

/** Makes the operations of a forward pass. */
export function forwardOperations(operate: Operate): ForwardOperations {
  return Object.freeze<ForwardOperations>({
    moments: (input) => operate((bench) => moments(bench, input)),
    normalize: (input, statistics, affine, epilogue = PLAIN) =>
      operate((bench) => normalize(bench, input, statistics, affine, epilogue)),
    updateRunningStats: ({ runningMean, runningVar }, moments, factor) =>
      operate(({ arrays, address, kernels, make }) => {
        const from = arrays.slot(moments, "moments");
        const channels = (from.contents.length - 1) / 2;
        const mean = make(elements(channels, "float32"));
        const variance = make(elements(channels, "float32"));
        kernels.updateRunningStats(
          from.address,
          factor,
          channels,
          address(runningMean),
          address(runningVar),
          mean.slot.address,
          variance.slot.address,
        );
        return { runningMean: mean.array, runningVar: variance.array };
      }),
  });
}

function moments(bench: Bench, input: Input): WasmArray {
  const { address, kernels } = bench;
  const { data, dtype } = input;
  const layout = layoutOf(input);
  const { batch, channels, inner, count, period, laneInner } = layout;
  const x = address(data);
  const half = halfOf(dtype);
  const parts = bench.parts(layout.elements, grainOf(layout));
  const workBytes = (period === null ? channels * RECORD : planes(7, period, 4)) +
    planes(1, MOST, 4);
  const [counts, others, work] = bench.areas(
    planes(1, channels, 8),
    planes(3, channels, 8) * (parts.length - 1),
    workBytes * parts.length,
  );
  const { array, slot } = bench.make({ kind: "moments", length: 1 + 2 * channels });
  // The first thread writes its mean and m2 where the result is to be.
  const meanOf = (thread: number) =>
    thread === 0 ? slot.address + 8 : others + planes(3, channels, 8) * (thread - 1);
  const countsOf = (thread: number) =>
    thread === 0 ? counts : meanOf(thread) + planes(2, channels, 8);
  if (period === null) {
    bench.run("momentsOfRows", parts, ({ from, to }, thread) => [
      x,
      half,
      channels,
      inner,
      from,
      to,
      meanOf(thread),
      countsOf(thread),
      work + thread * workBytes,
    ]);
  } else {
    const strips = inStrips(layout, 1);
    bench.run("momentsOfColumns", parts, ({ from, to }, thread) => [
      x,
      half,
      strips,
      channels,
      laneInner,
      period,
      from,
      to,
      meanOf(thread),
      countsOf(thread),
      work + thread * workBytes,
    ]);
  }
  const { channelStride, innerStride } = layout;
  kernels.mergeMoments(counts, others, parts.length - 1, channels, count, slot.address);
  kernels.exactMoments(x, half, batch, channels, inner, channelStride, innerStride, slot.address);
  return array;
}

function normalize(
  bench: Bench,
  input: Input,
  statistics: Statistics<WasmArray>,
  { weight, bias, eps }: Affine<WasmArray>,
  { residual, relu, overwrite }: Epilogue<WasmArray>,
): WasmArray {
  const { address, kernels } = bench;
  const { data, dtype, format } = input;
  const layout = layoutOf(input);
  const { channels, inner, period } = layout;
  const x = address(data);
  const added = bench.ordered(residual, format);
  const half = halfOf(dtype);
  const parts = bench.parts(layout.elements, grainOf(layout));
  const scratchBytes = planes(2, MOST, 4);
  const [perChannel, perLane, scratch] = bench.areas(
    planes(3, channels, 4),
    laneBytes(3, layout),
    half * scratchBytes * parts.length,
  );
  const [moments, means, variances] = addressesOf(bench, statistics);
  const [weights, biases] = [address(weight), address(bias)];
  const { array, slot } = bench.makeOver(overwrite ? data : null, elements(layout.elements, dtype));
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
  const coefficients = spread(bench, 3, layout, { perChannel, perLane });
  const y = slot.address;
  if (period === null) {
    bench.run("normalizeRows", parts, ({ from, to }, thread) => [
      x,
      added,
      y,
      half,
      channels,
      inner,
      from,
      to,
      coefficients,
      Number(relu),
      scratch + thread * scratchBytes,
    ]);
  } else {
    const strips = inStrips(layout, 2);
    bench.run("normalizeColumns", parts, ({ from, to }, thread) => [
      x,
      added,
      y,
      half,
      strips,
      period,
      from,
      to,
      coefficients,
      Number(relu),
      scratch + thread * scratchBytes,
    ]);
  }
  return array;
}
