/** What folding refuses, and what it says then. */

import assert from "node:assert/strict";
import { type BatchNormState, foldBatchNorm, type LinearLayer } from "../mod.ts";

const STATE: BatchNormState<Float32Array> = {
  numFeatures: 2,
  eps: 0,
  momentum: 0.1,
  weight: null,
  bias: null,
  runningMean: Float32Array.of(0, 0),
  runningVar: Float32Array.of(1, 1),
  numBatchesTracked: 0,
};
const LAYER: LinearLayer = { weight: new Float32Array(6), shape: [2, 3], bias: null };

/** Calls that must fail: the kind of error, the end of its message, and what differs from one that does not. */
const REFUSED: readonly (readonly [
  name: string,
  kind: typeof TypeError | typeof RangeError,
  end: string,
  layer: unknown,
  state?: unknown,
])[] = [
  [
    "no running statistics",
    TypeError,
    "no linear function of its input: current runningMean is null",
    {},
    { runningMean: null, runningVar: null },
  ],
  [
    "one running statistic",
    TypeError,
    "must both be there or both be null: current runningVar is null",
    {},
    { runningVar: null },
  ],
  [
    "a state on a device",
    TypeError,
    "as stateToHost copies it from a device: current value is of class Object",
    {},
    { weight: {} },
  ],
  ["eps below 0", RangeError, "eps must be finite and >= 0: current value is -1", {}, { eps: -1 }],
  [
    "other output channels",
    TypeError,
    "output channels, axis 0, must equal numFeatures: current values are 3 and 2 in shape (3, 2)",
    { shape: [3, 2] },
  ],
  [
    "other output channels of a linear layer (in, out), though they divide numFeatures",
    TypeError,
    "output channels, axis 1, must equal numFeatures: current values are 1 and 2 in shape (6, 1)",
    { shape: [6, 1], transposed: true },
  ],
  [
    "output channels per group that do not divide numFeatures",
    TypeError,
    "output channels per group, axis 1: current values are 2 and 3 in shape (2, 3, 1)",
    { shape: [2, 3, 1], transposed: true },
  ],
  [
    "groups that do not divide the input channels",
    TypeError,
    "groups, numFeatures / axis 1: current values are 3 and 2 in shape (3, 1, 2)",
    { shape: [3, 1, 2], transposed: true },
  ],
  [
    "a number of weights that is not the shape's",
    TypeError,
    "shape (2, 4) needs 8 weights: current number is 6",
    { shape: [2, 4] },
  ],
  ["one axis", TypeError, "a shape of rank >= 2: current shape is (6)", { shape: [6] }],
  ["no shape", TypeError, "a shape of rank >= 2: current shape is undefined", { shape: undefined }],
  ["an extent of 0", RangeError, "integer >= 1: current shape is (2, 0)", { shape: [2, 0] }],
  ["half an extent", RangeError, "integer >= 1: current shape is (2, 1.5)", { shape: [2, 1.5] }],
  // deno-lint-ignore no-sparse-arrays
  ["a hole", RangeError, "integer >= 1: current shape is (2, , 3)", { shape: [2, , 3] }],
  [
    "weights of another kind",
    TypeError,
    "weight must be a Float32Array: current value is of class Array",
    { weight: [1, 2] },
  ],
  [
    "a bias of another length",
    TypeError,
    "bias must be numFeatures: current values are 3 and 2",
    { bias: new Float32Array(3) },
  ],
  [
    "a bias of another kind",
    TypeError,
    "bias must be a Float32Array or null: current value is undefined",
    { bias: undefined },
  ],
];

Deno.test("foldBatchNorm() takes what the refused cases differ from", () => {
  assert.deepEqual(foldBatchNorm(STATE, LAYER, 2).weight, LAYER.weight);
});

for (const [name, kind, end, layer, state] of REFUSED) {
  Deno.test(`foldBatchNorm() refuses ${name}`, () => {
    const given = { ...LAYER, ...layer as object };
    const call = () => foldBatchNorm({ ...STATE, ...state as object }, given, given.shape?.length);
    assert.throws(call, (error) => {
      assert(error instanceof kind, `${error}`);
      assert.match(error.message, /^Cannot fold the batch norm /);
      assert.equal(error.message.slice(-end.length), end);
      return true;
    });
  });
}

Deno.test("foldBatchNorm() refuses null for a state or a layer", () => {
  const nothing = null as unknown as typeof STATE & LinearLayer;
  assert.throws(() => foldBatchNorm(STATE, nothing, 2), /weight must be a Float32Array/);
  assert.throws(() => foldBatchNorm(nothing, LAYER, 2), /the state must be a record as of init/);
});

Deno.test("foldBatchNorm() refuses a linear layer over another axis than the channels, of equal extents too", () => {
  const square: LinearLayer = { weight: new Float32Array(4), shape: [2, 2], bias: null };
  for (const transposed of [false, true]) {
    // Batches (N, 2, 2): the layer gives the last axis, the batch norm takes axis 1.
    assert.throws(() => foldBatchNorm(STATE, { ...square, transposed }, 3), {
      name: "TypeError",
      message:
        "Cannot fold the batch norm as the layer's weight must have the rank of the batches " +
        "that it normalizes, 3, or its outputs are not their channels, axis 1 (a linear layer over " +
        "these is a convolution of shape (out, in, 1)): current shape is (2, 2)",
    });
  }
  assert.throws(() => foldBatchNorm(STATE, { ...square, shape: [2, 2, 1] }, 2), /rank .*, 2, or/);
  const pointwise = foldBatchNorm(STATE, { ...square, shape: [2, 2, 1] }, 3);
  assert.deepEqual(pointwise.weight, foldBatchNorm(STATE, square, 2).weight);
  for (const [rank, name] of [[1, "RangeError"], [2.5, "RangeError"], [undefined, "TypeError"]]) {
    const message = `Cannot fold the batch norm as inputRank, that of the batches that it ` +
      `normalizes, must be an integer >= 2: current value is ${rank}`;
    assert.throws(() => foldBatchNorm(STATE, square, rank as number), { name, message } as Error);
  }
});
