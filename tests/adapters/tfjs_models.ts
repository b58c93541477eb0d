/** Models and data of the adapter's tests for TensorFlow.js, the same numbers in every process. */

/** TensorFlow.js, of which no test knows more than it calls. */
// deno-lint-ignore no-explicit-any
export type Tf = any;

/** Numbers in [0, 1) from a seed (mulberry32). */
export function uniform(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Normal numbers from a seed. */
export function normal(length: number, seed: number, scale = 1, shift = 0): Float32Array {
  const next = uniform(seed);
  return Float32Array.from({ length }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - next()));
    return shift + scale * radius * Math.cos(2 * Math.PI * next());
  });
}

/** A model to train, and what on. */
export interface Spec {
  readonly input: readonly number[];
  readonly output: readonly number[];
  readonly loss: "meanSquaredError" | "categoricalCrossentropy";
  readonly metrics: readonly string[];
  /** Whether plain TensorFlow.js can train it. */
  readonly plain: boolean;
  readonly make: (tf: Tf) => Tf;
}

const first = (tf: Tf, seed: number) => tf.initializers.glorotUniform({ seed });
const dense = (tf: Tf, units: number, seed: number, more = {}) =>
  tf.layers.dense({ units, kernelInitializer: first(tf, seed), ...more });
const norm = (tf: Tf, more = {}) => tf.layers.batchNormalization({ momentum: 0.9, ...more });
const relu = (tf: Tf) => tf.layers.activation({ activation: "relu" });
const conv = (tf: Tf, filters: number, seed: number) =>
  tf.layers.conv2d({
    ...{ filters, kernelSize: 3, padding: "same", useBias: false },
    kernelInitializer: first(tf, seed),
  });

/** The models, by name. */
export const SPECS: Readonly<Record<string, Spec>> = {
  /** Sequential, with penalties. */
  mlp: {
    ...{ input: [10], output: [1], loss: "meanSquaredError", metrics: ["mae"], plain: true },
    make: (tf) =>
      tf.sequential({
        layers: [
          dense(tf, 16, 1, { inputShape: [10], useBias: false }),
          norm(tf),
          relu(tf),
          dense(tf, 12, 2, { kernelRegularizer: "l1l2", useBias: false }),
          norm(tf, { epsilon: 1e-5 }),
          tf.layers.activation({ activation: "tanh" }),
          dense(tf, 1, 3),
        ],
      }),
  },
  /** Functional: convolutions, a branch, one batch norm at two places. Small, as TensorFlow.js's own on the CPU are slow. */
  cnn: {
    ...{ input: [3, 3, 2], output: [3], loss: "categoricalCrossentropy", metrics: ["accuracy"] },
    plain: true,
    make: (tf) => {
      const input = tf.input({ shape: [3, 3, 2] });
      const stem = relu(tf).apply(norm(tf).apply(conv(tf, 3, 11).apply(input)));
      const shared = norm(tf);
      const branch = relu(tf).apply(shared.apply(conv(tf, 3, 12).apply(stem)));
      const again = shared.apply(conv(tf, 3, 13).apply(branch));
      const joined = relu(tf).apply(tf.layers.add().apply([stem, again]));
      const pooled = tf.layers.globalAveragePooling2d({ dataFormat: "channelsLast" }).apply(joined);
      const output = dense(tf, 3, 14, { activation: "softmax" }).apply(pooled);
      return tf.model({ inputs: input, outputs: output });
    },
  },
  /** A sequential model within a functional one, called twice; a wrapper around a batch norm. */
  nested: {
    ...{ input: [3, 8], output: [2], loss: "meanSquaredError", metrics: ["mae"], plain: true },
    make: (tf) => {
      const inner = tf.sequential({
        layers: [dense(tf, 8, 21, { inputShape: [3, 8], useBias: false }), norm(tf), relu(tf)],
      });
      const input = tf.input({ shape: [3, 8] });
      const twice = inner.apply(inner.apply(input));
      const steps = tf.layers.timeDistributed({ layer: norm(tf) }).apply(twice);
      const output = dense(tf, 2, 22).apply(tf.layers.flatten().apply(steps));
      return tf.model({ inputs: input, outputs: output });
    },
  },
  /** What plain TensorFlow.js cannot train: scale and center false, axis 1, rank 5. */
  odd: {
    ...{ input: [4, 4, 3], output: [2], loss: "meanSquaredError", metrics: [], plain: false },
    make: (tf) => {
      const input = tf.input({ shape: [4, 4, 3] });
      const a = norm(tf, { axis: 1, scale: false }).apply(
        dense(tf, 3, 31, { useBias: false }).apply(input),
      );
      const b = norm(tf, { axis: 2, center: false }).apply(
        dense(tf, 4, 32, { useBias: false }).apply(a),
      );
      const cube = tf.layers.reshape({ targetShape: [4, 4, 2, 2] }).apply(b);
      const c = norm(tf, { scale: false, center: false }).apply(
        dense(tf, 3, 33, { useBias: false }).apply(cube),
      );
      const output = dense(tf, 2, 34).apply(tf.layers.flatten().apply(c));
      return tf.model({ inputs: input, outputs: output });
    },
  },
};

/** A batch norm that is drawn. */
interface DrawnNorm {
  readonly axis: number;
  readonly scale: boolean;
  readonly center: boolean;
}

/** A part of a model that is drawn, around a batch norm. */
export interface Block {
  /**
   * A dense layer and a batch norm; a model of both, called twice; a batch norm in two places; a wrapper that calls one for
   * each place along the first axis.
   */
  readonly kind: "dense" | "nested" | "shared" | "timed";
  readonly units: number;
  readonly norm: DrawnNorm;
}

/** A model that is drawn. */
export interface Plan {
  /** Extents between the rows and the features, 0 to 3 of them; the first above 1 where a block is `"timed"`. */
  readonly inner: readonly number[];
  readonly blocks: readonly Block[];
}

/** Makes a model of a plan. */
export function specOf({ inner, blocks }: Plan): Spec {
  const simple = ({ kind, norm: { axis, scale, center } }: Block) => {
    const rank = inner.length + (kind === "timed" ? 1 : 2);
    return scale && center && rank <= 4 && (axis === -1 || axis === rank - 1);
  };
  return {
    ...{ input: [...inner, 3], output: [1], loss: "meanSquaredError", metrics: ["mae"] },
    plain: blocks.every(simple),
    make: (tf) => {
      const input = tf.input({ shape: [...inner, 3] });
      let value = input;
      blocks.forEach(({ kind, units, norm: options }, i) => {
        const seed = 50 + 3 * i;
        const features = (seed: number, more = {}) =>
          dense(tf, units, seed, { useBias: false, ...more });
        const tanh = () => tf.layers.activation({ activation: "tanh" });
        const own = norm(tf, options);
        value = features(seed).apply(value);
        if (kind === "nested") {
          const inputShape = value.shape.slice(1);
          const model = tf.sequential({
            layers: [features(seed + 1, { inputShape }), own, tanh()],
          });
          value = model.apply(model.apply(value));
          return;
        }
        if (kind === "shared") value = own.apply(features(seed + 1).apply(own.apply(value)));
        if (kind === "timed") value = tf.layers.timeDistributed({ layer: own }).apply(value);
        if (kind === "dense") value = own.apply(value);
        value = tanh().apply(value);
      });
      if (inner.length > 0) value = tf.layers.flatten().apply(value);
      return tf.model({ inputs: input, outputs: dense(tf, 1, 70).apply(value) });
    },
  };
}

/** Rows to train on. */
export function dataOf(tf: Tf, { input, output, loss }: Spec, rows: number, seed = 5) {
  const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
  const x = tf.tensor(normal(rows * size(input), seed, 2, 1), [rows, ...input]);
  if (loss === "meanSquaredError") {
    return { x, y: tf.tensor(normal(rows * size(output), seed + 1), [rows, ...output]) };
  }
  const [classes] = output;
  const y = new Float32Array(rows * classes);
  for (let i = 0; i < rows; i++) y[i * classes + (i * 7 + (i >> 2)) % classes] = 1;
  return { x, y: tf.tensor(y, [rows, classes]) };
}

/** How far two tensors of one shape are apart. */
export function most(a: Tf, b: Tf): number {
  if (String(a.shape) !== String(b.shape)) throw new Error(`shapes ${a.shape} and ${b.shape}`);
  const [left, right] = [a.dataSync(), b.dataSync()];
  return left.reduce(
    (largest: number, value: number, i: number) => Math.max(largest, Math.abs(value - right[i])),
    0,
  );
}

/** Optimisers, by name. */
export const OPTIMIZERS: Readonly<Record<string, (tf: Tf) => Tf>> = {
  sgd: (tf) => tf.train.sgd(0.05),
  momentum: (tf) => tf.train.momentum(0.02, 0.9),
  adam: (tf) => tf.train.adam(0.005),
};
