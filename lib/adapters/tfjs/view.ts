/**
 * All shapes and axes as one: a tensor of any rank is seen as (A, C, B), with C the axis of channels, what stands before it in A
 * and what stands behind it in B, which costs no copy.
 *
 * @module
 */

import { elements } from "../../tensor.ts";
import type { TensorFlow, TfTensor } from "./framework.ts";

/** A tensor's extents as batch norm sees them; two where nothing stands behind the channels. */
export type View =
  | readonly [before: number, channels: number]
  | readonly [before: number, channels: number, after: number];

/** Sees a shape along an axis, negative from the end. */
export function viewOf({ shape }: Pick<TfTensor, "shape">, axis: number): View {
  const at = axisOf(shape, axis);
  const [before, after] = [elements(shape.slice(0, at)), elements(shape.slice(at + 1))];
  return after === 1 ? [before, shape[at]] : [before, shape[at], after];
}

/** An axis from the front. */
export function axisOf({ length }: readonly number[], axis: number): number {
  return axis < 0 ? axis + length : axis;
}

/** All axes of a view but the one of the channels. */
export function axesOf({ length }: View): readonly number[] {
  return length === 2 ? [0] : [0, 2];
}

/** Makes vectors over the channels that broadcast along a view. */
export function vectorsOf(
  tf: TensorFlow,
  { 1: channels, length }: View,
): (values: Float32Array) => TfTensor {
  return (values) => tf.tensor(values, length === 2 ? [channels] : [channels, 1]);
}
