/** Models and batches of the trainer's tests, the same numbers in every runtime, on every backend. */

import type { TensorFlowLike, TfModel, TfTensor } from "../../lib/adapters/tfjs/framework.ts";

/** A tensor of the graph, or what a layer made of it. */
type Symbolic = object;

/** What the tests use of TensorFlow.js beside what the library does. */
export interface Tfjs extends TensorFlowLike {
  readonly layers: Readonly<
    Record<string, (options?: object) => { readonly apply: (of: unknown) => Symbolic }>
  >;
  readonly input: (options: object) => Symbolic;
  readonly model: (ends: object) => Model;
  readonly sequential: (options: object) => Model;
  readonly initializers: { readonly glorotUniform: (options: object) => object };
  readonly train: Readonly<Record<"sgd" | "momentum" | "adam", (...rates: number[]) => object>>;
  readonly memory: () => { readonly numTensors: number; readonly numBytesInGPU?: number };
  readonly setBackend: (name: string) => Promise<boolean>;
  readonly registerBackend: (name: string, factory: () => object, priority: number) => boolean;
  readonly removeBackend: (name: string) => void;
  tensor(values: Float32Array, shape: readonly number[], dtype?: string): TfTensor;
  dispose(tensors: readonly TfTensor[]): void;
}

/** A model as the tests use it. */
export interface Model extends TfModel {
  compile(options: object): void;
  readonly apply: (of: unknown) => object;
  readonly trainOnBatch: (
    xs: readonly TfTensor[],
    ys: readonly TfTensor[],
  ) => Promise<number | number[]>;
  readonly dispose: () => void;
}

/** A model, what it is compiled with, and the shapes of its data. */
export interface Spec {
  readonly make: (tf: Tfjs) => Model;
  readonly loss: string | readonly string[];
  readonly metrics?: readonly string[] | Readonly<Record<string, string>>;
  readonly inputs: readonly (readonly number[])[];
  readonly outputs: readonly (readonly number[])[];
  /** Integers below it instead of numbers. */
  readonly words?: number;
  /** Whether TensorFlow.js can train it by itself. */
  readonly plain: boolean;
}

const glorot = (tf: Tfjs, seed: number) => tf.initializers.glorotUniform({ seed });

/** Without a bias before a batch norm: its gradient is nothing but rounding, of which Adam makes whole steps. */
function dense(tf: Tfjs, units: number, seed: number, options: object = {}) {
  return tf.layers.dense({ units, kernelInitializer: glorot(tf, seed), ...options });
}

function conv(tf: Tfjs, filters: number, seed: number, options: object = {}) {
  const kernelInitializer = glorot(tf, seed);
  return tf.layers.conv2d({
    ...{ filters, kernelSize: 3, padding: "same", useBias: false, kernelInitializer, ...options },
  });
}

const norm = (tf: Tfjs, options: object = {}) =>
  tf.layers.batchNormalization({ momentum: 0.9, ...options });

/** The models by name. */
export const SPECS = {
  sequential: {
    plain: true,
    ...{ inputs: [[10]], outputs: [[1]], loss: "meanSquaredError", metrics: ["mae"] },
    make: (tf) =>
      tf.sequential({
        layers: [
          dense(tf, 16, 1, { inputShape: [10], useBias: false, kernelRegularizer: "l1l2" }),
          norm(tf, { gammaRegularizer: "l1l2" }),
          tf.layers.activation({ activation: "relu" }),
          dense(tf, 12, 2, { useBias: false }),
          norm(tf, { epsilon: 1e-5 }),
          tf.layers.activation({ activation: "tanh" }),
          dense(tf, 1, 3),
        ],
      }),
  },
  /** Convolutions, a residual branch, a batch norm in two places. */
  convolutions: {
    plain: true,
    ...{ inputs: [[3, 3, 2]], outputs: [[4]] },
    ...{ loss: "categoricalCrossentropy", metrics: ["accuracy"] },
    make: (tf) => {
      const relu = () => tf.layers.activation({ activation: "relu" });
      const x = tf.input({ shape: [3, 3, 2] });
      const stem = relu().apply(norm(tf).apply(conv(tf, 3, 11).apply(x)));
      const shared = norm(tf);
      const once = relu().apply(shared.apply(conv(tf, 3, 12).apply(stem)));
      const twice = shared.apply(conv(tf, 3, 13).apply(once));
      const joined = relu().apply(tf.layers.add().apply([stem, twice]));
      const pooled = tf.layers.globalAveragePooling2d({ dataFormat: "channelsLast" }).apply(joined);
      return tf.model({
        inputs: x,
        outputs: dense(tf, 4, 14, { activation: "softmax" }).apply(pooled),
      });
    },
  },
  /** A nested model in two places, two inputs, two outputs that end at one batch norm. */
  nested: {
    plain: true,
    ...{ inputs: [[6], [6]], outputs: [[5], [1]] },
    ...{ loss: ["meanSquaredError", "meanAbsoluteError"], metrics: ["mae"] },
    make: (tf) => {
      const relu = () => tf.layers.activation({ activation: "relu" });
      const inner = tf.sequential({
        layers: [
          dense(tf, 5, 21, { inputShape: [6], useBias: false }),
          norm(tf),
          relu(),
          norm(tf, { momentum: 0.5 }),
        ],
      });
      const [a, b] = [tf.input({ shape: [6] }), tf.input({ shape: [6] })];
      const sum = tf.layers.add().apply([inner.apply(a), inner.apply(b)]);
      const end = norm(tf).apply(sum);
      return tf.model({ inputs: [a, b], outputs: [end, dense(tf, 1, 22).apply(end)] });
    },
  },
  /** A mask that an embedding begins goes through a batch norm to a recurrent layer. */
  masked: {
    plain: true,
    ...{ inputs: [[4]], outputs: [[2]], words: 5, loss: "meanSquaredError" },
    make: (tf) =>
      tf.sequential({
        layers: [
          tf.layers.embedding({
            ...{ inputDim: 5, outputDim: 3, maskZero: true, inputLength: 4 },
            embeddingsInitializer: glorot(tf, 31),
          }),
          norm(tf),
          tf.layers.simpleRNN({
            units: 2,
            kernelInitializer: glorot(tf, 32),
            recurrentInitializer: glorot(tf, 33),
          }),
        ],
      }),
  },
  /** Dense layers over maps: TensorFlow.js cannot train a convolution on its Wasm backend. */
  maps: {
    plain: true,
    ...{ inputs: [[4, 4, 3]], outputs: [[3]] },
    ...{ loss: "categoricalCrossentropy", metrics: ["accuracy"] },
    make: (tf) => {
      const relu = () => tf.layers.activation({ activation: "relu" });
      const x = tf.input({ shape: [4, 4, 3] });
      const a = relu().apply(norm(tf).apply(dense(tf, 6, 41, { useBias: false }).apply(x)));
      const b = norm(tf).apply(dense(tf, 6, 42, { useBias: false }).apply(a));
      const flat = tf.layers.flatten().apply(tf.layers.add().apply([a, b]));
      return tf.model({
        inputs: x,
        outputs: dense(tf, 3, 43, { activation: "softmax" }).apply(flat),
      });
    },
  },
  /** What TensorFlow.js cannot train: no scale, no center, axis 1, rank 5; and a batch norm that nothing is trained before. */
  odd: {
    plain: false,
    ...{ inputs: [[4, 3, 5]], outputs: [[2]], loss: "meanSquaredError" },
    make: (tf) =>
      tf.sequential({
        layers: [
          norm(tf, { inputShape: [4, 3, 5], axis: 2, scale: false, center: false }),
          dense(tf, 4, 51, { useBias: false }),
          norm(tf, { axis: 1, scale: false }),
          tf.layers.reshape({ targetShape: [4, 3, 2, 2] }),
          norm(tf, { center: false }),
          tf.layers.flatten(),
          dense(tf, 2, 52),
        ],
      }),
  },
  /** Wrappers that call a layer for each place of a row, before and behind a batch norm of all places. */
  timed: {
    plain: true,
    ...{ inputs: [[3, 4]], outputs: [[1]], loss: "meanSquaredError", metrics: ["mae"] },
    make: (tf) =>
      tf.sequential({
        layers: [
          tf.layers.timeDistributed({
            layer: dense(tf, 5, 61, { useBias: false }),
            inputShape: [3, 4],
          }),
          norm(tf),
          tf.layers.timeDistributed({ layer: dense(tf, 2, 62, { activation: "tanh" }) }),
          tf.layers.flatten(),
          dense(tf, 1, 63),
        ],
      }),
  },
  /** Batch norms within wrappers: one for each place of a row, and one in a model that is called for each. */
  within: {
    plain: true,
    ...{ inputs: [[3, 4]], outputs: [[1]], loss: "meanSquaredError", metrics: ["mae"] },
    make: (tf) => {
      const inner = tf.sequential({
        layers: [
          dense(tf, 3, 71, { inputShape: [5], useBias: false }),
          norm(tf, { momentum: 0.5 }),
          tf.layers.activation({ activation: "tanh" }),
        ],
      });
      return tf.sequential({
        layers: [
          dense(tf, 5, 72, { inputShape: [3, 4], useBias: false }),
          tf.layers.timeDistributed({ layer: norm(tf) }),
          tf.layers.timeDistributed({ layer: inner }),
          tf.layers.flatten(),
          dense(tf, 1, 73),
        ],
      });
    },
  },
} satisfies Record<string, Spec>;

/** Optimisers by name. */
export const OPTIMIZERS = {
  sgd: (tf: Tfjs) => tf.train.sgd(0.05),
  momentum: (tf: Tfjs) => tf.train.momentum(0.02, 0.9),
  adam: (tf: Tfjs) => tf.train.adam(0.005),
} as const;

/** Numbers of mean 0 and variance 1 from a seed, the same in every runtime: uniform, by a hash of their places. */
export function numbers(length: number, seed: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => {
    let bits = Math.imul(i + 1, 0x9E3779B1) ^ Math.imul(seed + 1, 0x85EBCA77);
    for (const shift of [15, 13, 16]) bits = Math.imul(bits ^ (bits >>> shift), 0x2C1B3C6D);
    return Math.sqrt(12) * ((bits >>> 0) / 2 ** 32 - 0.5);
  });
}

/** Rows of a model's data, as numbers. */
export interface Rows {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

/** Inputs and targets of so many rows. */
export function dataOf(spec: Spec, rows: number): { readonly xs: Rows[]; readonly ys: Rows[] } {
  const make = (shape: readonly number[], values: (length: number) => Float32Array): Rows => {
    const length = rows * shape.reduce((product, extent) => product * extent, 1);
    return { shape: [rows, ...shape], values: values(length) };
  };
  const { words } = spec;
  return {
    xs: spec.inputs.map((shape, i) =>
      make(
        shape,
        (length) =>
          words
            ? Float32Array.from({ length }, (_, j) => (j * j + 3 * j + (j >> 2)) % words)
            : numbers(length, 100 + i).map((value) => 1 + 2 * value),
      )
    ),
    ys: spec.outputs.map((shape, i) =>
      make(
        shape,
        (length) =>
          spec.loss === "categoricalCrossentropy"
            ? Float32Array.from({ length }, (_, j) =>
              j % shape[0] === (Math.floor(j / shape[0]) * 7 + (j >> 3)) % shape[0] ? 1 : 0)
            : numbers(length, 200 + i),
      )
    ),
  };
}

/** A part of the rows as a tensor. */
export function rowsOf(tf: Tfjs, { shape, values }: Rows, from: number, count: number): TfTensor {
  const width = values.length / shape[0];
  const part = values.slice(from * width, (from + count) * width);
  return tf.tensor(part, [count, ...shape.slice(1)], "float32");
}
