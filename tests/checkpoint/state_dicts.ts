/** What the suites of state dicts share: stored arrays, dicts as plain data, a network of all that there is. */

import assert from "node:assert/strict";
import {
  batchNormForward,
  type BatchNormLayer,
  type Device,
  initLayer,
  type LayerOptions,
  tensor,
} from "../../mod.ts";
import { type StateDict, StateDictError, type StoredArray } from "../../lib/checkpoint.ts";
import { bitsOf } from "../data_parallel.ts";
import { normalArray } from "../random.ts";

/** A stored vector. */
export const f32 = (...values: number[]): StoredArray => ({
  ...{ dtype: "F32", shape: [values.length] },
  data: Float32Array.from(values),
});

/** A stored counter. */
export const i64 = (value: bigint): StoredArray => ({
  ...{ dtype: "I64", shape: [] },
  data: BigInt64Array.of(value),
});

/** What a dict holds, as plain data with the bits of its numbers. */
export function plain(dict: StateDict): unknown {
  return Array.from(dict, ([name, { dtype, shape, data }]) => {
    const words = dtype === "F32" ? bitsOf(data) : [...data].map(String);
    return { name, dtype, shape: [...shape], words };
  });
}

/** A dict with some entries replaced or, where they are undefined, left out. */
export function changed(
  dict: StateDict,
  entries: Record<string, StoredArray | undefined>,
): StateDict {
  const pairs = [...new Map([...dict, ...Object.entries(entries)])];
  return new Map(pairs.flatMap(([name, array]) => array ? [[name, array]] : []));
}

/** The error of a call that must be about a state dict. */
export function differences(call: () => unknown): StateDictError {
  try {
    call();
  } catch (error) {
    assert(error instanceof StateDictError, String(error));
    return error;
  }
  throw new Error("the call succeeded");
}

/** Somebody else's node. */
export class Linear {
  readonly kind = "linear";
  readonly features = [1, 2];
}

/** A network of all that a state dict knows, and of what it does not. */
export function networkOf<A>(device: Device<A>, seed = 1) {
  const random = (length: number, at: number) => normalArray(length, 10 * seed + at);
  const trained = (layer: BatchNormLayer<A>) => {
    const { numFeatures } = layer.state;
    const input = tensor(device, random(8 * numFeatures, 1), [8, numFeatures]);
    return { ...layer, state: batchNormForward(layer.state, input, { device }).state };
  };
  const norm = (channels: number, options: LayerOptions = {}) =>
    trained(initLayer(device, "batchNorm", channels, options));
  return {
    stem: {
      kernel: tensor(device, random(24, 2), [2, 3, 2, 2], { format: "channelsLast" }),
      norm: norm(2, { activation: "relu", momentum: 0.25 }),
    },
    blocks: [
      { bias: device.upload(random(3, 3)), norm: norm(3, { affine: false }), rate: 0.5 },
      { norm: norm(3, { bias: false, trackRunningStats: false }), name: "second" },
    ],
    head: trained(initLayer(device, "batchNorm", 2)).state,
    others: [new Linear(), new Map([["x", 1]]), () => 1, null, undefined],
  };
}

/** The names of its state dict, in PyTorch's order. */
export const NAMES = [
  "stem.kernel",
  "stem.norm.weight",
  "stem.norm.bias",
  "stem.norm.running_mean",
  "stem.norm.running_var",
  "stem.norm.num_batches_tracked",
  "blocks.0.bias",
  "blocks.0.norm.running_mean",
  "blocks.0.norm.running_var",
  "blocks.0.norm.num_batches_tracked",
  "blocks.1.norm.weight",
  "head.weight",
  "head.bias",
  "head.running_mean",
  "head.running_var",
  "head.num_batches_tracked",
];
