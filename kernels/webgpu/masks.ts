/**
 * Masks of outputs with ReLU: whether and how one lies beside an output, and room for it.
 *
 * @module
 */

import type { DType, Tensor } from "../../lib/tensor.ts";
import { type MaskLayout, PACKS_OF_A_WORD } from "../wgsl/mask.ts";
import { elementsOf } from "../wgsl/tiles.ts";
import { bytesOf, type Mask, type WebGpuArray } from "./arrays.ts";
import type { Context } from "./context.ts";
import type { Limits, WalkPlan } from "./plan.ts";

/**
 * The mask of a walk that writes an output, by the lanes and rows of its workgroups; null without packs, or where the output or
 * the mask fits no binding, since a mask knows nothing of windows.
 */
export function layMask(
  { geometry: { samples, channels, inner }, tile, pack }: WalkPlan,
  dtype: DType,
  { choices: { masks }, bindingBytes, alignment }: Limits,
): MaskLayout | null {
  if (!masks || pack === "none") return null;
  const rows = tile.workgroup / tile.lanes;
  const positions = samples * inner;
  const words = Math.ceil(positions / (PACKS_OF_A_WORD * rows)) * rows;
  const bytes = 4 * words * channels;
  const largest = Math.max(bytes, positions * channels * bytesOf(dtype) * elementsOf(pack));
  return largest > bindingBytes - alignment ? null : { pack, rows, words, bytes };
}

/** Room for the mask of an output, which goes with it. */
export function roomForMask(
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
