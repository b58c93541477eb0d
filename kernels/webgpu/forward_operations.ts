/**
 * Statistics and normalization as launches.
 *
 * @module
 */

import type { Affine, Device, Epilogue, Statistics } from "../../lib/device.ts";
import { extents, type Tensor } from "../../lib/tensor.ts";
import { PACKS_OF_A_WORD } from "../wgsl/mask.ts";
import { momentsKernel } from "../wgsl/moments.ts";
import { normalizeKernel } from "../wgsl/normalize.ts";
import { runningStatsKernel } from "../wgsl/statistics.ts";
import { elementsOf } from "../wgsl/tiles.ts";
import { bytesOf, type Moments, type Slot, type WebGpuArray } from "./arrays.ts";
import { planMask } from "./plan.ts";
import { bindMask } from "./walks.ts";
import type { Bench, Operate } from "./workbench.ts";

type A = WebGpuArray;

/** Operations of the way forward; `normalize` may take an epilogue. */
export interface ForwardOperations extends Pick<Device<A>, "moments" | "updateRunningStats"> {
  readonly normalize: (
    input: Tensor<A>,
    statistics: Statistics<A>,
    affine: Affine<A>,
    epilogue?: Epilogue<A>,
  ) => A;
}

/** Room for the moments of a batch; zeros for an empty one. */
export function roomForMoments(bench: Bench, input: Tensor<A>): A {
  const x = bench.part(input);
  const { batch, channels, inner } = extents(input.shape);
  const count = batch * inner;
  if (count === 0) {
    const contents = { kind: "moments", channels, slices: 1, count } as const;
    return bench.fill(contents, () => new Float32Array(4 * channels));
  }
  const { cells, slices } = bench.plan(input.shape, { x }, {}, 1);
  return bench.room({ kind: "moments", channels, slices: slices * cells, count })[0];
}

/** Launches the statistics of a batch, or of some of its channels, into the room for all. */
export function launchMoments(
  bench: Bench,
  input: Tensor<A>,
  parts: Slot<Moments>,
  channels?: readonly [from: number, to: number],
): void {
  const { count, slices: total } = parts.contents;
  if (count === 0) return;
  const over = bench.plan(input.shape, { x: bench.part(input) }, { parts }, 1);
  const slices = total / over.cells;
  over.launch(bench.recorder, {
    kernel: bench.kernel(momentsKernel, { ...over.tile, dtype: input.dtype }),
    arrays: { parts },
    ...{ slices, channels },
    also: ({ cell }) => ({
      parameters: { zero: 0, partsSlices: total, firstSlice: cell * slices },
    }),
  });
}

const NO_EPILOGUE: Epilogue<A> = { residual: null, relu: false, overwrite: false };

/** Makes the operations of the way forward. */
export function forwardOperations(operate: Operate): ForwardOperations {
  const moments = (input: Tensor<A>): A =>
    operate((bench) => {
      const array = roomForMoments(bench, input);
      launchMoments(bench, input, bench.moments(array));
      return array;
    });

  const normalize = (
    input: Tensor<A>,
    statistics: Statistics<A>,
    affine: Affine<A>,
    { residual, relu }: Epilogue<A> = NO_EPILOGUE,
  ): A =>
    operate((bench) => {
      const x = bench.part(input);
      const stats = bench.look(statistics);
      const beside = {
        ...stats.slots,
        weight: bench.elementsOrNull(affine.weight),
        bias: bench.elementsOrNull(affine.bias),
      };
      const added = bench.partOrNull(residual);
      const [array, slot] = bench.room(x.slot.contents);
      if (slot.contents.length === 0) return array;
      const y = { slot, format: input.format };
      const reread = stats.source === "batch" ? 1 : 0;
      const over = bench.plan(input.shape, { x, residual: added, y }, beside, reread);
      const { dtype } = input;
      const plan = relu && stats.source === "batch"
        ? planMask(over, bytesOf(dtype) * elementsOf(over.pack), bench.limits)
        : null;
      const mask = plan && bench.roomForMask({ ...input, data: array }, plan);
      const tile = mask ? { ...over.tile, ahead: PACKS_OF_A_WORD } : over.tile;
      over.launch(bench.recorder, {
        kernel: bench.kernel(normalizeKernel, {
          ...{ ...tile, dtype, source: stats.source, relu },
          weight: beside.weight !== null,
          bias: beside.bias !== null,
          residual: added !== null,
          mask: mask !== null,
        }),
        arrays: beside,
        slices: over.shares(stats.slices),
        unit: mask ? PACKS_OF_A_WORD * mask.rows : 1,
        also: ({ channel }) => {
          const { parameters, ranges } = bindMask(mask, channel);
          const { slices: momentsSlices } = stats;
          return { parameters: { zero: 0, momentsSlices, eps: affine.eps, ...parameters }, ranges };
        },
      });
      return array;
    });

  const updateRunningStats: ForwardOperations["updateRunningStats"] = (
    { runningMean, runningVar },
    array,
    factor,
  ) =>
    operate((bench) => {
      const moments = bench.moments(array);
      const [oldMean, oldVar] = [bench.elements(runningMean), bench.elements(runningVar)];
      const [meanArray, newMean] = bench.room(oldMean.contents);
      const [varArray, newVar] = bench.room(oldVar.contents);
      const { channels, slices } = moments.contents;
      const beside = { moments, oldMean, oldVar, newMean, newVar };
      const parameters = { zero: 0, momentsSlices: slices, keep: 1 - factor, factor };
      bench.overChannels(
        (tile) => bench.kernel(runningStatsKernel, tile),
        channels,
        beside,
        parameters,
      );
      return { runningMean: meanArray, runningVar: varArray };
    });

  return Object.freeze({ moments, normalize, updateRunningStats });
}
