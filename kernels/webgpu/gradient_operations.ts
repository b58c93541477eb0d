/**
 * Gradient sums and gradients as launches.
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
import { extents, type Tensor } from "../../lib/tensor.ts";
import { gradientSumsKernel, HEADER, restatedSumsKernel } from "../wgsl/gradient_sums.ts";
import { gradientsKernel, gradParametersKernel } from "../wgsl/gradients.ts";
import { maskGate, plainGate } from "../wgsl/mask.ts";
import type { Slot, Sums, WebGpuArray } from "./arrays.ts";
import { bindMask, type Tensors } from "./walks.ts";
import type { Bench, Looked, Operate } from "./workbench.ts";

type A = WebGpuArray;

/** Operations of the way back; each may take a prologue. */
export interface GradientOperations {
  readonly gradientSums: (
    input: Tensor<A>,
    gradOutput: Tensor<A>,
    statistics: Statistics<A>,
    prologue?: Prologue<A>,
  ) => A;
  readonly gradients: (
    input: Tensor<A>,
    gradOutput: Tensor<A>,
    statistics: Statistics<A>,
    sums: GradientSums<A>,
    affine: Affine<A>,
    prologue?: Prologue<A>,
  ) => FusedGradientArrays<A>;
}

const NO_PROLOGUE: Prologue<A> = { output: null, residualFormat: null, overwrite: false };

/** Makes the operations of the way back. */
export function gradientOperations(operate: Operate): GradientOperations {
  const gradientSums: GradientOperations["gradientSums"] = (
    input,
    gradOutput,
    statistics,
    { output } = NO_PROLOGUE,
  ) =>
    operate((bench) => {
      const array = roomForSums(bench, input, gradOutput, statistics, output);
      launchSums(bench, input, gradOutput, statistics, output, bench.sums(array));
      return array;
    });

  const gradients: GradientOperations["gradients"] = (
    input,
    gradOutput,
    statistics,
    sums,
    { weight, bias, eps },
    { output, residualFormat } = NO_PROLOGUE,
  ) =>
    operate((bench) => {
      const { mask, gate, reread, tensors: given } = read(bench, input, gradOutput, output);
      const scale = bench.elementsOrNull(weight);
      bench.elementsOrNull(bias);
      const stats = bench.look(statistics);
      const ownSums = bench.sums(sums.local);
      const total = sums.total && bench.sums(sums.total);
      const kind = sums.total === null ? "none" : sums.total === sums.local ? "local" : "other";

      const { channels } = extents(input.shape);
      const [gradInput, dx] = bench.room(given.x.slot.contents);
      const [gradResidual, dr] = residualFormat
        ? bench.room(given.gradOutput.slot.contents)
        : [null, null];
      if (dx.contents.length === 0) {
        return { gradInput, gradResidual, ...noGradients(bench, channels, weight, bias) };
      }
      const { local, scratch } = stated(bench, ownSums, stats);
      const pair = weight || bias ? bench.pair(channels) : null;
      const tensors: Tensors = {
        gradInput: { slot: dx, format: input.format },
        ...given,
        x: total ? given.x : null,
        gradResidual: dr && residualFormat ? { slot: dr, format: residualFormat } : null,
      };
      const beside = { local, total: kind === "other" ? total : null, weight: scale };
      const bound =
        [...Object.values(tensors), ...Object.values(beside), mask].filter(Boolean).length;
      // One dispatch for everything, if a kernel may bind so many buffers and so large ones.
      const together = pair !== null && bound < bench.limits.storageBuffers &&
        pair.range.size <= bench.limits.bindingBytes;
      const over = bench.plan(input.shape, tensors, beside, total ? reread : 0);
      const { tile } = over;
      const { dtype } = input;
      const localSlices = local.contents.slices;
      over.launch(bench.recorder, {
        kernel: bench.kernel(gradientsKernel, {
          ...{ ...tile, dtype, total: kind, parameters: together },
          ...{ ...gate, weight: scale !== null, residual: dr !== null },
        }),
        arrays: beside,
        slices: over.shares(localSlices),
        also: ({ channel, cell }) => ({
          parameters: {
            ...{ eps, localSlices },
            ...(total && { totalSlices: total.contents.slices }),
            ...bindMask(mask, channel).parameters,
            ...(together && {
              gradWeightAt: channel,
              gradBiasAt: pair.stride + channel,
              writesParameters: cell === 0 ? 1 : 0,
            }),
          },
          ranges: {
            ...(together && { gradParameters: pair.range }),
            ...bindMask(mask, channel).ranges,
          },
        }),
      });
      if (pair && !together) {
        const alone = { local, gradWeight: pair.first[1], gradBias: pair.second[1] };
        bench.overChannels((tile) => bench.kernel(gradParametersKernel, tile), channels, alone, {
          eps,
          localSlices,
        });
      }
      if (scratch) bench.free(scratch);
      if (pair && !weight) bench.free(pair.first[0]);
      if (pair && !bias) bench.free(pair.second[0]);
      return {
        ...{ gradInput, gradResidual },
        gradWeight: weight && pair ? pair.first[0] : null,
        gradBias: bias && pair ? pair.second[0] : null,
      };
    });

  return Object.freeze({ gradientSums, gradients });
}

/** Room for the gradient sums of a batch; zeros for an empty one. */
export function roomForSums(
  bench: Bench,
  input: Tensor<A>,
  gradOutput: Tensor<A>,
  statistics: Statistics<A>,
  output: Tensor<A> | null,
): A {
  const { reread, tensors } = read(bench, input, gradOutput, output);
  const { handles } = bench.look(statistics);
  const { batch, channels, inner } = extents(input.shape);
  const contents = { kind: "sums", channels, empty: false, statistics: handles } as const;
  if (batch * inner === 0) {
    const zeros = () => new Float32Array(2 * (HEADER + 1) * channels);
    return bench.fill({ ...contents, slices: 1, empty: true }, zeros);
  }
  const { cells, slices } = bench.plan(input.shape, tensors, {}, reread);
  return bench.room({ ...contents, slices: slices * cells })[0];
}

/** Launches the gradient sums of a batch, or of some of its channels, into the room for all. */
export function launchSums(
  bench: Bench,
  input: Tensor<A>,
  gradOutput: Tensor<A>,
  statistics: Statistics<A>,
  output: Tensor<A> | null,
  parts: Slot<Sums>,
  channels?: readonly [from: number, to: number],
): void {
  const { empty, slices: partsSlices } = parts.contents;
  if (empty) return;
  const { mask, gate, reread, tensors } = read(bench, input, gradOutput, output);
  const { source, slots, slices: momentsSlices } = bench.look(statistics);
  const beside = { ...slots, parts };
  const over = bench.plan(input.shape, tensors, beside, reread);
  const slices = partsSlices / over.cells;
  const { dtype } = input;
  over.launch(bench.recorder, {
    kernel: bench.kernel(gradientSumsKernel, { ...over.tile, ...gate, dtype, source }),
    arrays: beside,
    ...{ slices, channels },
    also: ({ cell, channel }) => {
      const { parameters, ranges } = bindMask(mask, channel);
      const firstSlice = cell * slices;
      return {
        parameters: { zero: 0, momentsSlices, partsSlices, firstSlice, ...parameters },
        ranges,
      };
    },
  });
}

/** What both directions of a walk back read: the mask of an output, where it has one, instead of the output. */
function read(
  bench: Bench,
  input: Tensor<A>,
  gradOutput: Tensor<A>,
  output: Tensor<A> | null,
) {
  const [x, dy, y] = [bench.part(input), bench.part(gradOutput), bench.partOrNull(output)];
  const mask = bench.maskOf(output);
  const gate = mask ? maskGate(mask) : plainGate(output !== null);
  const tensors = { x, gradOutput: dy, output: mask ? null : y };
  return { tensors, mask, gate, reread: tensors.output ? 3 : 2 };
}

/** Gradients of the parameters of an empty batch. */
function noGradients(bench: Bench, channels: number, weight: A | null, bias: A | null) {
  const zeros = () =>
    bench.fill(
      { kind: "elements", length: channels, dtype: "float32" },
      () => new Float32Array(channels),
    );
  return { gradWeight: weight && zeros(), gradBias: bias && zeros() };
}

/** Sums with these statistics before them: themselves, or a copy to be freed. */
function stated(
  bench: Bench,
  local: Slot<Sums>,
  { source, handles, slots, slices }: Looked,
): { readonly local: Slot<Sums>; readonly scratch: A | null } {
  const { statistics, channels, slices: localSlices } = local.contents;
  const same = statistics.length === handles.length &&
    statistics.every((array, i) => array === handles[i]);
  if (same) return { local, scratch: null };
  const [scratch, restated] = bench.room({ ...local.contents, slices: 1, statistics: handles });
  bench.overChannels(
    (tile) => bench.kernel(restatedSumsKernel, { ...tile, source }),
    channels,
    { local, ...slots, restated },
    { zero: 0, momentsSlices: slices, localSlices },
  );
  return { local: restated, scratch };
}
