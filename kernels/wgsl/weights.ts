/**
 * Weights of examples in WGSL: a number for each position of a batch, the same for all channels, or one for each sample.
 *
 * They lie without channels, so that a walk's strides are not theirs: the parameter `weights` is (first element, positions of a
 * sample in the whole tensor, where the box's first sample begins, positions that share one).
 */

import type { DType } from "../../lib/tensor.ts";
import { type Storage, tensor } from "./kernel.ts";
import { storedAs, type Tile } from "./tiles.ts";

/** How a kernel is given weights. */
export interface Weighing {
  /** One for each place of a sample, one for each sample, or none. */
  readonly weights: "perPlace" | "perSample" | "none";
  /** How they are stored. */
  readonly weightsDtype: DType;
}

/** Options of a kernel without weights. */
export const UNWEIGHTED: Weighing = Object.freeze({ weights: "none", weightsDtype: "float32" });

/** The storage buffer of the weights, if there are any. */
export function weightsStorage(
  { pack }: Tile,
  { weights, weightsDtype }: Weighing,
): Storage | null {
  if (weights === "none") return null;
  return tensor(storedAs(weightsDtype, isPacked(pack, weights) ? "places" : "none"));
}

/** Whether an element of the buffer holds the weights of four places. */
export function isPacked(pack: Tile["pack"], weights: Weighing["weights"]): boolean {
  return pack === "places" && weights === "perPlace";
}

/** WGSL: `weightsAt`, the weights of a position's values. Needs `tiles`. */
export function weightsReader({ flat, pack }: Tile, { weights }: Weighing): string {
  if (weights === "none") return "";
  const place = flat ? "position" : "position / p.inner * p.weights.y + position % p.inner";
  const at = weights === "perPlace" ? place : `(p.weights.z + ${place}) / p.weights.w`;
  const own = `weights[p.weights.x + ${at}]`;
  return `
fn weightsAt(position: u32) -> Values {
  return Values(${isPacked(pack, weights) ? own : `f32(${own})`});
}
`;
}
