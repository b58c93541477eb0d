/** Statistics and normalization as launches. */

import type { Device } from "../../lib/device.ts";
import { type DType, extents, type Tensor } from "../../lib/tensor.ts";
import { type MaskLayout, PACKS_OF_A_WORD } from "../wgsl/mask.ts";
import { momentsKernel } from "../wgsl/moments.ts";
import { normalizeKernel } from "../wgsl/normalize.ts";
import { runningStatsKernel } from "../wgsl/statistics.ts";
import { elementsOf } from "../wgsl/tiles.ts";
import { bytesOf, type Mask, recordBytes, type WebGpuArray } from "./arrays.ts";
import { type Context, fill, type Operate, room } from "./context.ts";
import {
  alike,
  boundsIn,
  inputOf,
  momentsOf,
  statisticsOf,
  vector,
  weighing,
  weightsOf,
} from "./given.ts";
import type { Limits, WalkPlan } from "./plan.ts";
import { overChannels, walk } from "./walks.ts";

/** Operations of the way forward. */
export type Forward = Pick<Device<WebGpuArray>, "moments" | "normalize" | "updateRunningStats">;

/** Makes the operations of the way forward. */
export function forwardOperations(operate: Operate): Forward {
  const moments: Forward["moments"] = ({ input, weights: given }) =>
    operate((context) => {
      const x = inputOf(context, input);
      const weights = weightsOf(context, input, given);
      const { dtype, shape } = input;
      const { batch, channels, inner } = extents(shape);
      const isEmpty = batch * inner === 0;
      const [kind, count] = weights
        ? ["weighted moments", isEmpty ? 0 : NaN] as const
        : ["moments", batch * inner] as const;
      const contents = { kind, channels, count, statistics: [] } as const;
      if (isEmpty) {
        const bytes = recordBytes(kind, 1) * channels;
        return fill(context, { ...contents, slices: 1 }, () => new Uint8Array(bytes));
      }
      const over = walk(context, { shape, tensors: { x }, beside: {}, reduced: kind, weights });
      const slices = over.slices(0);
      const [array, slot] = room(context, { ...contents, slices: slices * over.cells });
      over.launch({
        kernel: momentsKernel,
        options: { dtype, ...weighing(weights) },
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
      const over = walk(context, { shape, tensors: { x, residual, y: { slot, format } }, beside });
      const bounds = activation && boundsIn(activation, dtype);
      const layout = activation && !bounds && source === "batch"
        ? layMask(over, dtype, context.limits)
        : null;
      const mask = layout && roomForMask(context, { ...input, data: array }, layout);
      over.launch({
        kernel: normalizeKernel,
        options: {
          ...{ dtype, source, mask: mask !== null, residual: residual !== null },
          activation: bounds ? "bounded" as const : activation ? "relu" as const : "none" as const,
          weight: beside.weight !== null,
          bias: beside.bias !== null,
        },
        arrays: beside,
        mask,
        slices: over.slices(statistics.slices),
        unit: mask ? PACKS_OF_A_WORD * mask.rows : 1,
        parameters: { eps, ...bounds },
      });
      return array;
    });

  const updateRunningStats: Forward["updateRunningStats"] = (pass) =>
    operate((context) => {
      const { running: { runningMean, runningVar }, factor } = pass;
      const moments = momentsOf(context, pass.moments);
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

/**
 * The mask of a walk that writes an output, by the lanes and rows of its workgroups; null without packs, or where the output or
 * the mask fits no binding, since a mask knows nothing of windows.
 */
export function layMask(
  { geometry: { samples, channels, inner }, tile, pack }: WalkPlan,
  dtype: DType,
  { bindingBytes, alignment }: Limits,
): MaskLayout | null {
  if (pack === "none") return null;
  const rows = tile.workgroup / tile.lanes;
  const positions = samples * inner;
  const words = Math.ceil(positions / (PACKS_OF_A_WORD * rows)) * rows;
  const bytes = 4 * words * channels;
  const largest = Math.max(bytes, positions * channels * bytesOf(dtype) * elementsOf(pack));
  return largest > bindingBytes - alignment ? null : { pack, rows, words, bytes };
}

/** Room for the mask of an output, which goes with it. */
function roomForMask(
  { memory, arrays }: Context,
  { data, shape, format }: Tensor<WebGpuArray>,
  layout: MaskLayout,
): Mask {
  const block = memory.allocate(layout.bytes, "storage");
  const range = { block, offset: 0, size: layout.bytes };
  const mask = { ...layout, range, shape: [...shape], format };
  arrays.attach(data, mask);
  return mask;
}
