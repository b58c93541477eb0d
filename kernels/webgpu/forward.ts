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
import { fill, type Operate, room } from "./context.ts";
import { alike, inputOf, statistic, statisticsOf, vector } from "./given.ts";
import { layMask, roomForMask } from "./masks.ts";
import { overChannels, walk } from "./walks.ts";

/** Operations of the way forward. */
export type Forward = Pick<Device<WebGpuArray>, "moments" | "normalize" | "updateRunningStats">;

/** Makes the operations of the way forward. */
export function forwardOperations(operate: Operate): Forward {
  const moments: Forward["moments"] = ({ input }) =>
    operate((context) => {
      const x = inputOf(context, input);
      const { dtype, shape } = input;
      const { batch, channels, inner } = extents(shape);
      const count = batch * inner;
      const contents = { kind: "moments", channels, count, empty: count === 0 } as const;
      if (contents.empty) {
        const bytes = recordBytes("moments", 1) * channels;
        return fill(context, { ...contents, slices: 1 }, () => new Uint8Array(bytes));
      }
      const over = walk(context, {
        ...{ shape, tensors: { x }, beside: {}, reread: 1 },
        reduced: (slices) => recordBytes("moments", slices),
      });
      const slices = over.slices(0);
      const [array, slot] = room(context, { ...contents, slices: slices * over.cells });
      over.launch({
        kernel: momentsKernel,
        options: { dtype },
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
      const x = inputOf(context, input);
      const statistics = statisticsOf(context, pass.statistics, channels);
      const beside = {
        ...statistics.slots,
        weight: vector(context, weight, channels),
        bias: vector(context, bias, channels),
      };
      const residual = alike(context, input, pass.residual);
      const [array, slot] = room(context, x.slot.contents);
      if (slot.contents.length === 0) return array;
      const { source } = statistics;
      const over = walk(context, {
        ...{ shape, tensors: { x, residual, y: { slot, format } }, beside },
        reread: source === "batch" ? 1 : 0,
      });
      const relu = activation === "relu";
      const layout = relu && source === "batch" ? layMask(over, dtype, context.limits) : null;
      const mask = layout && roomForMask(context, { ...input, data: array }, layout);
      over.launch({
        kernel: normalizeKernel,
        options: {
          ...{ dtype, source, relu, mask: mask !== null, residual: residual !== null },
          weight: beside.weight !== null,
          bias: beside.bias !== null,
          ahead: mask ? PACKS_OF_A_WORD : over.tile.ahead,
        },
        arrays: beside,
        mask,
        slices: over.slices(statistics.slices),
        unit: mask ? PACKS_OF_A_WORD * mask.rows : 1,
        parameters: { eps },
      });
      return array;
    });

  const updateRunningStats: Forward["updateRunningStats"] = (pass) =>
    operate((context) => {
      const { running: { runningMean, runningVar }, factor } = pass;
      const moments = statistic(context, pass.moments, "moments");
      const { channels } = moments.contents;
      const oldMean = vector(context, runningMean, channels);
      const oldVar = vector(context, runningVar, channels);
      const [meanArray, newMean] = room(context, oldMean.contents);
      const [varArray, newVar] = room(context, oldVar.contents);
      overChannels(context, channels, {
        kernel: runningStatsKernel,
        options: {},
        arrays: { moments, oldMean, oldVar, newMean, newVar },
        parameters: { keep: 1 - factor, factor },
      });
      return { runningMean: meanArray, runningVar: varArray };
    });

  return { moments, normalize, updateRunningStats };
}
