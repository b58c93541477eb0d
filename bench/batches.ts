/** Batches: shapes, numbers, and how they get onto a device. */

import {
  type BatchNormState,
  type Device,
  type DType,
  type Format,
  stateFromHost,
  type Tensor,
  tensor,
} from "../mod.ts";
import { normalArray } from "../tests/random.ts";

export interface BatchShape {
  readonly shape: readonly number[];
  readonly format: Format;
}

export const first = (...shape: number[]): BatchShape => ({ shape, format: "channelsFirst" });
export const last = (...shape: number[]): BatchShape => ({ shape, format: "channelsLast" });

export function extentsOf({ shape: [samples, channels, ...spatial] }: BatchShape) {
  return { samples, channels, inner: spatial.reduce((product, extent) => product * extent, 1) };
}

export function elementsOf({ shape }: BatchShape): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

export function titleOf({ shape, format }: BatchShape): string {
  return `[${shape.join(",")}]${format === "channelsLast" ? " channels last" : ""}`;
}

/** A batch on the host, in the memory order of its shape; weight and bias of shape (C). */
export interface Numbers {
  readonly x: Float32Array<ArrayBuffer>;
  readonly dy: Float32Array<ArrayBuffer>;
  readonly residual: Float32Array<ArrayBuffer>;
  readonly weight: Float32Array<ArrayBuffer>;
  readonly bias: Float32Array<ArrayBuffer>;
}

export const EPS = 1e-5;
/** Weight of the new batch in the running statistics; some peers have none. */
export const MOMENTUM = 0.1;

/** How many numbers are drawn; a prime, so that channels of larger batches repeat each other at other places. */
const DRAWN = 1_048_573;

/** Draws x of some mean, everything else about 0 or 1, standard deviation 1; the same numbers at every call. */
export function numbersOf(
  shape: BatchShape,
  { mean = 0.5, dtype = "float32" }: { readonly mean?: number; readonly dtype?: DType } = {},
): Numbers {
  const [length, { channels }] = [elementsOf(shape), extentsOf(shape)];
  const drawn = (seed: number, mean = 0) => {
    const few = normalArray(Math.min(DRAWN, length), seed, mean);
    const all = new Float32Array(length);
    for (let at = 0; at < length; at += few.length) {
      all.set(few.subarray(0, Math.min(few.length, length - at)), at);
    }
    return dtype === "float16" ? Float32Array.from(Float16Array.from(all)) : all;
  };
  return {
    ...{ x: drawn(1, mean), dy: drawn(2), residual: drawn(3) },
    ...{ weight: normalArray(channels, 4, 1, 0.1), bias: normalArray(channels, 5, 0, 0.1) },
  };
}

export interface Placed<A> {
  readonly state: BatchNormState<A>;
  readonly x: Tensor<A>;
  readonly dy: Tensor<A>;
  readonly residual: Tensor<A>;
}

/** Which samples of a batch go onto the device, in which storage, with which running mean. */
export interface Placing {
  readonly dtype?: DType;
  readonly runningMean?: number;
  readonly rank?: number;
  readonly worldSize?: number;
}

/** Puts the samples of one of several ranks onto a device, with the state of a layer before it. */
export function place<A>(
  device: Device<A>,
  batch: BatchShape,
  { x, dy, residual, weight, bias }: Numbers,
  { dtype = "float32", runningMean = 0, rank = 0, worldSize = 1 }: Placing = {},
): Placed<A> {
  const { shape: [samples, channels, ...spatial], format } = batch;
  const [from, to] = [rank, rank + 1].map((r) => Math.floor(samples * r / worldSize));
  const size = elementsOf(batch) / samples;
  const cut = (values: Float32Array) =>
    tensor(device, values.slice(from * size, to * size), [to - from, channels, ...spatial], {
      format,
      dtype,
    });
  const state = stateFromHost(device, {
    ...{ numFeatures: channels, eps: EPS, momentum: MOMENTUM, weight, bias, numBatchesTracked: 0 },
    runningMean: new Float32Array(channels).fill(runningMean),
    runningVar: new Float32Array(channels).fill(1),
  });
  return { state, x: cut(x), dy: cut(dy), residual: cut(residual) };
}
