/**
 * Statistics and normalization as launches.
 *
 * @module
 */

import type { Device } from "../../lib/device.ts";
import { extents } from "../../lib/tensor.ts";
import { PACKS_OF_A_WORD } from "../wgsl/mask.ts";
import { momentsKernel } from "../wgsl/moments.ts";
import { normalizeKernel } from "../wgsl/normalize.ts";
import { runningStatsKernel } from "../wgsl/statistics.ts";
import { recordBytes, type WebGpuArray } from "./arrays.ts";
import type { Operate } from "./context.ts";
import { layMask } from "./plan.ts";

/** Operations of the way forward. */
export type Forward = Pick<Device<WebGpuArray>, "moments" | "normalize" | "updateRunningStats">;

/** Makes the operations of the way forward. */
export function forwardOperations(operate: Operate): Forward {
  const moments: Forward["moments"] = ({ input }) =>
    operate((context) => {
      const x = context.input(input);
      const { dtype, shape } = input;
      const { batch, channels, inner } = extents(shape);
      const count = batch * inner;
      const contents = { kind: "moments", channels, count, empty: count === 0 } as const;
      if (contents.empty) {
        return context.fill({ ...contents, slices: 1 }, () => new Float32Array(4 * channels));
      }
      const over = context.walk({
        ...{ shape, tensors: { x }, beside: {}, reread: 1 },
        reduced: (slices) => recordBytes("moments", slices),
      });
      const slices = over.slices(0);
      const [array, slot] = context.room({ ...contents, slices: slices * over.cells });
      over.launch({
        kernel: (tile) => context.kernel(momentsKernel, { ...tile, dtype }),
        arrays: { moments: slot },
        slices,
      });
      return array;
    });

  const normalize: Forward["normalize"] = (pass) =>
    operate((context) => {
      const { input, activation, affine: { weight, bias, eps } } = pass;
      const { shape, dtype, format } = input;
      const channels = shape[1];
      const x = context.input(input);
      const statistics = context.statistics(pass.statistics, channels);
      const beside = {
        ...statistics.slots,
        weight: context.vectorOrNull(weight, channels),
        bias: context.vectorOrNull(bias, channels),
      };
      const residual = context.likeOrNull(input, pass.residual);
      const [array, slot] = context.room(x.slot.contents);
      if (slot.contents.length === 0) return array;
      const { source } = statistics;
      const over = context.walk({
        ...{ shape, tensors: { x, residual, y: { slot, format } }, beside },
        reread: source === "batch" ? 1 : 0,
      });
      const relu = activation === "relu";
      const layout = relu && source === "batch" ? layMask(over, dtype, context.limits) : null;
      const mask = layout && context.roomForMask({ ...input, data: array }, layout);
      over.launch({
        kernel: (tile) =>
          context.kernel(normalizeKernel, {
            ...{ ...tile, ahead: mask ? PACKS_OF_A_WORD : tile.ahead, dtype, source, relu },
            weight: beside.weight !== null,
            bias: beside.bias !== null,
            residual: residual !== null,
            mask: mask !== null,
          }),
        arrays: beside,
        whole: mask ? { mask: mask.range } : {},
        slices: over.slices(statistics.slices),
        unit: mask ? PACKS_OF_A_WORD * mask.rows : 1,
        parameters: { eps, ...(mask && { maskWords: mask.words }) },
      });
      return array;
    });

  const updateRunningStats: Forward["updateRunningStats"] = (pass) =>
    operate((context) => {
      const { running: { runningMean, runningVar }, factor } = pass;
      const moments = context.statistic(pass.moments, "moments");
      const { channels } = moments.contents;
      const oldMean = context.vector(runningMean, channels);
      const oldVar = context.vector(runningVar, channels);
      const [meanArray, newMean] = context.room(oldMean.contents);
      const [varArray, newVar] = context.room(oldVar.contents);
      context.overChannels(channels, {
        kernel: (tile) => context.kernel(runningStatsKernel, tile),
        arrays: { moments, oldMean, oldVar, newMean, newVar },
        parameters: { keep: 1 - factor, factor },
      });
      return { runningMean: meanArray, runningVar: varArray };
    });

  return { moments, normalize, updateRunningStats };
}
