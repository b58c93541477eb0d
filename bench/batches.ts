/** The batches that are measured, and what must come out of them. */

import {
  type BatchNormState,
  type Device,
  type Format,
  stateFromHost,
  type Tensor,
  tensor,
} from "../mod.ts";
import { assertClose, EPSILON } from "../tests/kit.ts";
import * as oracle from "../tests/oracle.ts";
import { normalArray } from "../tests/random.ts";

/** Shape and memory order of a batch. */
export interface BatchShape {
  readonly shape: readonly number[];
  readonly format: Format;
}

/** The shapes of published figures; the large ones with fewer samples, for a device of plain loops. */
export const SHAPES: readonly BatchShape[] = [
  { shape: [4, 64, 56, 56], format: "channelsFirst" },
  { shape: [8, 256, 14, 14], format: "channelsFirst" },
  { shape: [8, 256, 14, 14], format: "channelsLast" },
  { shape: [2, 2048, 7, 7], format: "channelsFirst" },
  { shape: [256, 128], format: "channelsFirst" },
  { shape: [2, 80, 100, 100], format: "channelsFirst" },
];

/** Elements of a batch. */
export function elementsOf({ shape }: BatchShape): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

/** Shape and memory order as a title says them. */
export function titleOf({ shape, format }: BatchShape): string {
  return `[${shape.join(",")}]${format === "channelsLast" ? " channels last" : ""}`;
}

/** Values, gradient and state of a batch, channels first, the same numbers on every device. */
export function numbersOf(shape: BatchShape) {
  const { shape: [, channels, ...spatial] } = shape;
  const inner = spatial.reduce((product, extent) => product * extent, 1);
  const elements = elementsOf(shape);
  const state: BatchNormState<Float32Array> = {
    numFeatures: channels,
    eps: 1e-5,
    momentum: 0.1,
    weight: normalArray(channels, 3, 1, 0.1),
    bias: normalArray(channels, 4),
    runningMean: normalArray(channels, 5),
    runningVar: normalArray(channels, 6).map((value) => 0.5 + value * value),
    numBatchesTracked: 0,
  };
  return {
    batch: { values: normalArray(elements, 1, 0.5, 2), channels, inner },
    gradient: normalArray(elements, 2),
    state,
  };
}

/** A batch, or a rank's slice of it, on a device. */
export interface Placed<A> {
  readonly state: BatchNormState<A>;
  readonly x: Tensor<A>;
  readonly dy: Tensor<A>;
}

/** Puts the samples of one of several ranks onto a device. */
export function place<A>(
  device: Device<A>,
  shape: BatchShape,
  rank = 0,
  worldSize = 1,
): Placed<A> {
  const { batch, gradient, state } = numbersOf(shape);
  const { shape: [samples, ...rest], format } = shape;
  const [from, to] = [rank, rank + 1].map((r) => Math.floor(samples * r / worldSize));
  const size = batch.channels * batch.inner;
  const cut = (values: Float32Array) =>
    tensor(device, ordered(values.slice(from * size, to * size), batch, format), [
      to - from,
      ...rest,
    ], { format });
  return { state: stateFromHost(device, state), x: cut(batch.values), dy: cut(gradient) };
}

/** Fails unless a result is the oracle's, in the memory order of the batch. */
export function compare(
  actual: Float32Array,
  expected: ArrayLike<number>,
  { format }: BatchShape,
  batch: oracle.Batch,
  ulps: number,
): void {
  // In units of the output: at these sizes no term of a formula exceeds 16.
  const tolerance = { relative: ulps * EPSILON.float32, absolute: 16 * ulps * EPSILON.float32 };
  assertClose(actual, ordered(Float32Array.from(expected), batch, format), tolerance, "result");
}

function ordered(
  values: Float32Array<ArrayBuffer>,
  extents: { readonly channels: number; readonly inner: number },
  format: Format,
): Float32Array<ArrayBuffer> {
  return format === "channelsLast" ? oracle.permute(values, extents, format) : values;
}
