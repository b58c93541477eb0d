/**
 * Models for the law in jax-js: segments with a batch norm between each two, run whole by jax-js's own formula and its own
 * gradients, or by ranks that each have some of the rows, linked by `syncBatchNorm`.
 */

import {
  type BatchNormState,
  type Device,
  initBatchNorm,
  type ProcessGroup,
  stateToHost,
} from "../../mod.ts";
import { psum, syncBatchNorm } from "../../lib/adapters/jax.ts";
import { normalArray } from "../random.ts";
import type { Arr, JaxModule, Weights } from "./load_jax.ts";

/** Steps of the law. */
export const STEPS = 20;

/** What a segment does to its input. */
type Run = (weights: Weights, x: Arr) => Arr;

/** A segment: what it does to activations, and the shapes of its weights. */
interface Segment {
  readonly run: (jax: JaxModule, weights: Weights, x: Arr) => Arr;
  readonly shapes: readonly (readonly number[])[];
}

/** A model, as segments; the last one's results are compared with targets. */
export interface Model {
  readonly name: string;
  /** Shapes of an example and of a target. */
  readonly example: readonly number[];
  readonly target: readonly number[];
  readonly segments: readonly Segment[];
  /** Channels of the batch norm after each segment but the last, and their axis. */
  readonly channels: readonly number[];
  readonly axis: number;
  /** Whether ranks let jax-js trace a segment once; else it does so in every step. */
  readonly jit: boolean;
}

const dense = (from: number, to: number): Segment => ({
  run: ({ numpy }, [w], x) => numpy.matmul(x, w),
  shapes: [[from, to]],
});
const relued = ({ run, shapes }: Segment): Segment => ({
  run: (jax, weights, x) => run(jax, weights, jax.nn.relu(x)),
  shapes,
});
const conv = (from: number, to: number, stride: number): Segment => ({
  run: ({ lax }, [kernel], x) => lax.conv(x, kernel, [stride, stride], "SAME"),
  shapes: [[to, from, 3, 3]],
});
const pooled = ({ run, shapes }: Segment): Segment => ({
  run: (jax, weights, x) => run(jax, weights, jax.numpy.mean(x, [2, 3])),
  shapes,
});

/** Two hidden layers, channels last as those of rows are. */
export const MLP: Model = {
  ...{ name: "MLP", example: [6], target: [2], axis: -1, channels: [10, 8], jit: false },
  segments: [dense(6, 10), relued(dense(10, 8)), relued(dense(8, 2))],
};
/** Two convolutions, channels first. */
export const CNN: Model = {
  ...{ name: "CNN", example: [1, 6, 6], target: [3], axis: 1, channels: [4, 6], jit: true },
  segments: [conv(1, 4, 1), relued(conv(4, 6, 2)), relued(pooled(dense(6, 3)))],
};

/** A rule to change weights by gradients, on the host and in float64: what is the same for all is no part of the law. */
export type Optimiser = "SGD" | "Adam";
const RATE = { SGD: 0.2, Adam: 0.02 } as const;

function optimiser(kind: Optimiser) {
  const seen: { readonly m: Float64Array; readonly v: Float64Array }[] = [];
  let step = 0;
  return (weights: readonly Float32Array[], gradients: readonly Float32Array[]) => {
    step++;
    weights.forEach((own, i) => {
      const { m, v } = seen[i] ??= {
        ...{ m: new Float64Array(own.length), v: new Float64Array(own.length) },
      };
      gradients[i].forEach((g, j) => {
        m[j] += 0.1 * (g - m[j]);
        v[j] += 0.001 * (g * g - v[j]);
        const adam = m[j] / (1 - 0.9 ** step) / (Math.sqrt(v[j] / (1 - 0.999 ** step)) + 1e-8);
        own[j] -= RATE[kind] * (kind === "Adam" ? adam : g);
      });
    });
  };
}

/** Rows of a batch, from one on and so many. */
export interface Rows {
  readonly from: number;
  readonly count: number;
  readonly of: number;
}

/** What came of a training. */
export interface Trained {
  readonly losses: readonly number[];
  readonly weights: readonly number[];
  /** Running mean and variance of each batch norm, side by side; none where no state is kept. */
  readonly running: readonly number[];
}

const product = (shape: readonly number[]) => shape.reduce((all, each) => all * each, 1);

/** First weights: segments', then gamma and beta of each batch norm. */
function firstWeights({ segments, channels }: Model) {
  const shapes = segments.flatMap(({ shapes }) => shapes);
  const kernels = shapes.map((shape, i) => {
    const scale = Math.sqrt(2 / (product(shape) / Math.max(shape[0], shape[1])));
    return normalArray(product(shape), 10 + i, 0, scale / 2);
  });
  const affine = channels.flatMap((count, i) => [
    normalArray(count, 50 + i, 1, 0.1),
    normalArray(count, 60 + i, 0, 0.1),
  ]);
  const vectors = channels.flatMap((count) => [[count], [count]]);
  return { values: [...kernels, ...affine], shapes: [...shapes, ...vectors] };
}

/** Loss and gradients of the rows of a step. */
type Step = (weights: readonly Arr[], x: Arr, y: Arr) => Promise<readonly [Arr, readonly Arr[]]>;

/** Trains a model by steps. */
async function train(
  jax: JaxModule,
  model: Model,
  { rows, steps, rule }: { readonly rows: Rows; readonly steps: number; readonly rule: Optimiser },
  step: Step,
): Promise<Omit<Trained, "running">> {
  const device = jax.defaultDevice();
  const { values, shapes } = firstWeights(model);
  const update = optimiser(rule);
  const losses: number[] = [];
  const array = (own: Float32Array<ArrayBuffer>, shape: readonly number[]) =>
    own.length === 0
      ? jax.numpy.zeros([...shape], { device })
      : jax.numpy.array(own, { shape: [...shape], device });
  const part = (example: readonly number[], seed: number) => {
    const each = product(example);
    const own = normalArray(each * rows.of, seed, 0.5, 1.5);
    const { from, count } = rows;
    return array(own.slice(from * each, (from + count) * each), [count, ...example]);
  };
  for (let i = 0; i < steps; i++) {
    const weights = values.map((own, at) => array(own, shapes[at]));
    const data = [part(model.example, 100 + i), part(model.target, 500 + i)] as const;
    const [loss, gradients] = await step(weights, ...data);
    losses.push((await loss.data())[0]);
    update(values, await Promise.all(gradients.map((gradient) => gradient.data())));
  }
  return { losses, weights: values.flatMap((own) => [...own]) };
}

/** The rows' share of half the mean squared distance of all rows. */
function distance(jax: JaxModule, y: Arr, target: Arr, rows: number): Arr {
  const off = y.sub(target);
  return jax.numpy.sum(off.ref.mul(off)).mul(0.5 / rows);
}

/** Cuts weights into those of segments and of batch norms. */
function cut({ segments, channels }: Model, weights: readonly Arr[]) {
  let at = 0;
  const parts = segments.map(({ shapes }) => weights.slice(at, at += shapes.length));
  return { parts, norms: channels.map(() => weights.slice(at, at += 2)) };
}

/** All rows at once, by jax-js's own formula and its own gradients of it, which it traces once. */
export async function trainWhole(
  jax: JaxModule,
  model: Model,
  options: { readonly rows: Rows; readonly steps: number; readonly rule: Optimiser },
): Promise<Omit<Trained, "running">> {
  const { numpy: np } = jax;
  const normalize = (h: Arr, [gamma, beta]: Weights) => {
    const { length } = h.shape;
    const channel = model.axis < 0 ? length + model.axis : model.axis;
    const axes = h.shape.map((_, axis) => axis).filter((axis) => axis !== channel);
    const along = h.shape.map((extent, axis) => axis === channel ? extent : 1);
    const centred = h.ref.sub(np.mean(h, axes, { keepdims: true }));
    const variance = np.mean(centred.ref.mul(centred.ref), axes, { keepdims: true });
    return centred.div(np.sqrt(variance.add(1e-5))).mul(gamma.reshape(along)).add(
      beta.reshape(along),
    );
  };
  const loss = (all: readonly Arr[], x: Arr, target: Arr): Arr => {
    const { parts, norms } = cut(model, all);
    const y = model.segments.reduce((h, { run }, i) => {
      const out = run(jax, parts[i], h);
      return i < norms.length ? normalize(out, norms[i]) : out;
    }, x);
    return distance(jax, y, target, options.rows.of);
  };
  const step = jax.jit(jax.valueAndGrad(loss));
  try {
    return await train(jax, model, options, (...given) => Promise.resolve(step(...given)));
  } finally {
    step.dispose();
  }
}

/** What a rank needs. */
export interface RankOptions<A> {
  readonly device: Device<A>;
  /** Whose rows the gradients are summed over. */
  readonly group: ProcessGroup;
  /** Another group for the batch norms: one of one rank makes them local, which is the control. */
  readonly normGroup?: Pick<ProcessGroup, "worldSize" | "allReduce">;
  readonly rows: Rows;
  readonly steps: number;
  readonly rule: Optimiser;
}

/** One rank's rows, by segments with links between them. */
export async function trainRank<A>(
  jax: JaxModule,
  model: Model,
  options: RankOptions<A>,
): Promise<Trained> {
  const { device, group, normGroup = group, rows } = options;
  const norm = syncBatchNorm(jax, { device, group: normGroup, axis: model.axis });
  const states = model.channels.map((C): BatchNormState<A> =>
    initBatchNorm(device, C, { affine: false })
  );
  const last = model.segments.length - 1;
  // jax-js 0.1.25 does not write a sum over no rows on wasm: what is there is what was there before.
  const zerosLike = (gradient: Arr) => {
    gradient.dispose();
    return jax.numpy.zeros([...gradient.shape], { device: gradient.device });
  };
  const segments = model.segments.map(({ run }) => {
    const own: Run = (weights, x) => run(jax, weights, x);
    return model.jit ? jax.jit(own) : Object.assign(own, { dispose: () => {} });
  });
  const trained = await train(jax, model, options, async (weights, x, target) => {
    const { parts, norms } = cut(model, weights);
    const ways: ((gradient: Arr) => Promise<Arr>)[] = [];
    const gradients = new Map<Weights, Weights>();
    let h = x;
    for (const [i, run] of segments.entries()) {
      const segment: Run = (weights, x) =>
        i === last ? distance(jax, run(weights, x), target, rows.of) : run(weights, x);
      const [out, pull] = jax.vjp(segment, [parts[i], h]);
      ways.push((gradient) => {
        const [own, dx] = pull(gradient);
        pull.dispose();
        gradients.set(parts[i], rows.count > 0 ? own : own.map(zerosLike));
        return Promise.resolve(dx);
      });
      h = out;
      if (i === last) break;
      const [gamma, beta] = norms[i];
      const { y, pullback, state } = await norm(h, gamma, beta, states[i]);
      ways.push(async (gradient) => {
        const [dh, ...own] = await pullback(gradient);
        pullback.dispose();
        gradients.set(norms[i], own);
        return dh;
      });
      states[i] = state;
      h = y;
    }
    let gradient = jax.numpy.array(Float32Array.of(1), { shape: [], device: h.device });
    for (const way of ways.reverse()) gradient = await way(gradient);
    gradient.dispose();
    const own = [...parts, ...norms].flatMap((part) => gradients.get(part) ?? []);
    const total = await psum(jax, { loss: h, own }, group);
    return [total.loss, total.own] as const;
  });
  for (const segment of segments) segment.dispose();
  const running: number[] = [];
  for (const state of states) {
    const { runningMean, runningVar } = await stateToHost(device, state);
    running.push(...runningMean ?? [], ...runningVar ?? []);
  }
  return { ...trained, running };
}

/** The rows of each rank, from how many each has. */
export function rowsOf(counts: readonly number[]): readonly Rows[] {
  const of = counts.reduce((all, count) => all + count, 0);
  let from = 0;
  return counts.map((count) => ({ from: (from += count) - count, count, of }));
}
