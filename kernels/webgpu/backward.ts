/** Gradient sums and gradients as launches. */

import type { Device, GradientArrays, GradientsPass, SumsPass } from "../../lib/device.ts";
import { extents, type Format } from "../../lib/tensor.ts";
import { gradientSumsKernel } from "../wgsl/gradient_sums.ts";
import { gradientsKernel, type GradientsOptions, gradParametersKernel } from "../wgsl/gradients.ts";
import { maskGate, plainGate } from "../wgsl/mask.ts";
import { recordBytes, type Slot, type Statistic, type WebGpuArray } from "./arrays.ts";
import { type Context, fill, type Operate, pair, room } from "./context.ts";
import {
  alike,
  boundsIn,
  inputOf,
  sameItems,
  statistic,
  statisticsOf,
  type StatisticsSlots,
  vector,
  weighing,
  weightsOf,
} from "./given.ts";
import { overChannels, walk } from "./walks.ts";

type A = WebGpuArray;

/** Operations of the way back. */
export type Backward = Pick<Device<A>, "gradientSums" | "gradients">;

/** Makes the operations of the way back. */
export function backwardOperations(operate: Operate): Backward {
  const gradientSums: Backward["gradientSums"] = (pass) =>
    operate((context) => {
      const { mask, gate, bounds, tensors, statistics } = read(context, pass);
      const weights = weightsOf(context, pass.input, pass.weights);
      const { dtype, shape } = pass.input;
      const { batch, channels, inner } = extents(shape);
      const { source, slots: beside, handles } = statistics;
      const count = batch * inner;
      const contents = { kind: "gradient sums", channels, count, statistics: handles } as const;
      if (count === 0) {
        const bytes = recordBytes("gradient sums", 1) * channels;
        return fill(context, { ...contents, slices: 1 }, () => new Uint8Array(bytes));
      }
      const over = walk(context, { shape, tensors, beside, reduced: "gradient sums", weights });
      const slices = over.slices(0);
      const total = slices * over.cells;
      const [array, sums] = room(context, { ...contents, slices: total });
      over.launch({
        kernel: gradientSumsKernel,
        options: { ...gate, ...weighing(weights), dtype, source },
        arrays: { ...beside, sums },
        ...{ mask, slices, parameters: { ...bounds } },
      });
      return array;
    });

  const gradients: Backward["gradients"] = (pass) =>
    operate((context) => gradientsIn(context, pass));

  return { gradientSums, gradients };
}

/** Runs the pass that ends the way back. */
function gradientsIn(context: Context, pass: GradientsPass<A>): GradientArrays<A> {
  const { input, affine: { weight, bias, eps }, sums, residualFormat } = pass;
  const { shape, dtype, format } = input;
  const channels = shape[1];
  const { mask, gate, bounds, tensors: given, statistics } = read(context, pass);
  const weights = sums.total && weightsOf(context, input, pass.weights);
  const scale = vector(context, weight, channels);
  vector(context, bias, channels);
  const local = statistic(context, sums.local, "gradient sums", channels);
  const total = sums.total && statistic(context, sums.total, "gradient sums", channels);
  const empty = given.x.slot.contents.length === 0;
  checkStatistics(local, statistics, empty);
  const kind: GradientsOptions["total"] = total === null
    ? "none"
    : sums.total === sums.local
    ? "local"
    : "other";

  if (weights && residualFormat && context.limits.storageBuffers < MOST_BOUND) {
    return gradientsByTwo(context, { ...pass, residualFormat });
  }
  const [gradInput, dx] = room(context, given.x.slot.contents);
  const [gradResidual, dr] = residualFormat
    ? room(context, given.gradOutput.slot.contents)
    : [null, null];
  if (empty) {
    const zeros = () =>
      fill(
        context,
        { kind: "elements", length: channels, dtype: "float32" },
        () => new Float32Array(channels),
      );
    const [gradWeight, gradBias] = [weight && zeros(), bias && zeros()];
    return { gradInput, gradResidual, gradWeight, gradBias };
  }
  const both = weight || bias ? pair(context, channels) : null;
  const tensors = {
    gradInput: { slot: dx, format },
    ...given,
    x: total ? given.x : null,
    gradResidual: dr && residualFormat ? { slot: dr, format: residualFormat } : null,
  };
  const beside = { local, total: kind === "other" ? total : null, weight: scale };
  const bound =
    [...Object.values(tensors), ...Object.values(beside), mask, weights].filter(Boolean).length;
  // One dispatch for everything, if a kernel may bind so many buffers and so large ones.
  const { storageBuffers, bindingBytes } = context.limits;
  const range = both?.range ?? null;
  const together = range !== null && bound < storageBuffers && range.size <= bindingBytes;
  const over = walk(context, { shape, tensors, beside, weights });
  over.launch({
    kernel: gradientsKernel,
    options: {
      ...{ ...gate, ...weighing(weights), dtype, total: kind, parameters: together },
      ...{ weight: scale !== null, residual: dr !== null },
    },
    arrays: beside,
    ...{ mask, whole: together ? { gradParameters: range } : {} },
    slices: over.slices(local.contents.slices),
    parameters: { eps, ...bounds, ...(together && { gradBiasAt: both?.stride }) },
  });
  if (both === null) {
    return { gradInput, gradResidual, gradWeight: null, gradBias: null };
  }
  const [[gradWeight, first], [gradBias, second]] = [both.first, both.second];
  if (!together) {
    overChannels(context, channels, {
      ...{ kernel: gradParametersKernel, options: {}, parameters: { eps } },
      arrays: { local, gradWeight: first, gradBias: second },
    });
  }
  // Both were written; who has no weight, or no bias, has no use for one.
  if (!weight) {
    context.arrays.free(gradWeight);
  }
  if (!bias) {
    context.arrays.free(gradBias);
  }
  return {
    ...{ gradInput, gradResidual },
    gradWeight: weight && gradWeight,
    gradBias: bias && gradBias,
  };
}

/** Storage buffers of the kernel that has everything: x, gradients, gate, sums, weight and weights. */
const MOST_BOUND = 9;

/** The same where a kernel may not bind so many: first the residual's gradient, and from that, which is behind the gate, the rest. */
function gradientsByTwo(
  context: Context,
  pass: GradientsPass<A> & { readonly residualFormat: Format },
): GradientArrays<A> {
  const { affine: { eps }, sums: { local }, residualFormat: format, gradOutput } = pass;
  const { gradInput, gradResidual } = gradientsIn(context, {
    ...{ ...pass, affine: { weight: null, bias: null, eps } },
    sums: { local, total: null },
  });
  context.arrays.free(gradInput);
  const behind = { ...gradOutput, data: gradResidual!, format };
  const rest = { ...pass, gradOutput: behind, output: undefined, residualFormat: undefined };
  return { ...gradientsIn(context, rest), gradResidual };
}

/** What both passes back read: the mask of an output, where it has one, instead of the output. */
export function read(context: Context, { input, gradOutput, output, statistics }: SumsPass<A>) {
  const x = inputOf(context, input);
  const dy = alike(context, input, gradOutput);
  const y = alike(context, input, output);
  const { mask: found } = y?.slot ?? {};
  // It may have been written for a tensor of another shape or order, whose array this is.
  const bounds = output && boundsIn(output.activation, output.dtype);
  const mask =
    !bounds && found?.format === y?.format && found && sameItems(found.shape, input.shape)
      ? found
      : null;
  return {
    tensors: { x, gradOutput: dy, output: mask ? null : y },
    mask,
    gate: mask ? maskGate(mask) : plainGate(bounds ? "bounded" : y ? "output" : "none"),
    bounds,
    statistics: statisticsOf(context, statistics, input.shape[1]),
  };
}

/** The kernels take the statistics of a pass from before its local sums. */
function checkStatistics(
  { contents: { statistics, count } }: Slot<Statistic>,
  { handles }: StatisticsSlots,
  empty: boolean,
): void {
  const same = sameItems(statistics, handles);
  if (same && (count === 0) === empty) return;
  throw new TypeError(
    `Cannot compute the gradients as the local sums must be those that gradientSums made of this batch with the ` +
      `statistics of the pass: current ones are ${
        same
          ? `of ${empty ? "a batch with values" : "an empty batch"}`
          : statistics.length === 0
          ? "from a wire"
          : "of other statistics"
      }`,
  );
}
