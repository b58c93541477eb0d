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

const first = (...shape: number[]): BatchShape => ({ shape, format: "channelsFirst" });
const last = (...shape: number[]): BatchShape => ({ shape, format: "channelsLast" });

/** The shapes of published figures, the large ones with fewer samples: a device of plain loops takes its time. */
export const CPU_SHAPES: readonly BatchShape[] = [
  first(4, 64, 56, 56),
  first(8, 256, 14, 14),
  last(8, 256, 14, 14),
  first(2, 2048, 7, 7),
  first(256, 128),
  first(2, 80, 100, 100),
];

/** Layers of a ResNet-50 on 32 images and a small one; the last is larger than the caches of today's GPUs. */
export const GPU_SHAPES: readonly BatchShape[] = [
  first(256, 128),
  first(32, 256, 14, 14),
  last(32, 256, 14, 14),
  first(32, 2048, 7, 7),
  first(32, 64, 56, 56),
  last(32, 64, 56, 56),
  first(32, 64, 112, 112),
];

/** Enough to run every row where a GPU is software; SwiftShader takes a second for a larger one. */
export const SOFTWARE_GPU_SHAPES: readonly BatchShape[] = [
  first(64, 16),
  first(4, 4, 2, 2),
  last(4, 4, 2, 2),
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
