/**
 * Second order against central differences of float64 formulas that know no code of the library, alone, over uneven ranks
 * and in evaluation; and the laws that need no formulas: forward and reverse mode are adjoint, a Hessian is symmetric.
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  batchNormBackward,
  batchNormBackwardBackward,
  batchNormBackwardMoments,
  batchNormForward,
  batchNormInferBackwardBackward,
  batchNormInferJvp,
  batchNormJvp,
  type Device,
  type DType,
  type Format,
  initBatchNorm,
  type ReduceGroup,
  runRanks,
  stateFromHost,
  syncBatchNormBackwardBackward,
  syncBatchNormBackwardMoments,
  syncBatchNormForward,
  syncBatchNormJvp,
  type Tensor,
  tensor,
  toArray,
  type WeightOptions,
} from "../../mod.ts";
import { assertClose, type DeviceKit, EPSILON, testsOf } from "../kit.ts";
import * as oracle from "../oracle.ts";
import { normalArray } from "../random.ts";

interface Case {
  readonly name: string;
  readonly shape: readonly number[];
  /** Samples of each rank. */
  readonly counts: readonly number[];
  readonly format?: Format;
  readonly dtype?: DType;
  readonly eps?: number;
  readonly mean?: number;
  readonly affine?: false;
  readonly relu?: true;
  readonly arange?: true;
  /** How examples count; all alike where it is left out. */
  readonly weights?: "perPlace" | "perSample" | "lengths";
  /** Where kernels take long to compile this one is left out. */
  readonly more?: true;
}

const CASES: readonly Case[] = [
  { name: "(6, 3)", shape: [6, 3], counts: [1, 0, 5], more: true },
  {
    name: "(3, 2, 5), residual and ReLU",
    ...{ shape: [3, 2, 5], counts: [1, 0, 2], relu: true, more: true },
  },
  {
    name: "(2, 4, 2, 3), channels last, residual and ReLU",
    ...{ shape: [2, 4, 2, 3], counts: [0, 1, 1], format: "channelsLast", relu: true },
  },
  {
    name: "(3, 3, 4), neither weight nor bias",
    ...{ shape: [3, 3, 4], counts: [2, 1], affine: false, more: true },
  },
  { name: "mean 100", shape: [4, 2, 6], counts: [1, 3], mean: 100, more: true },
  {
    name: "float16",
    ...{ shape: [4, 3, 5], counts: [3, 0, 1], dtype: "float16", relu: true },
  },
  {
    name: "PyTorch test 18: arange (4, 5, 6), weight 1..5, eps 1e-4",
    ...{ shape: [4, 5, 6], counts: [1, 2, 1], eps: 1e-4, arange: true },
  },
  {
    name: "weights of places, (3, 2, 5), residual and ReLU",
    ...{ shape: [3, 2, 5], counts: [1, 0, 2], relu: true, weights: "perPlace" },
  },
  {
    name: "weights of samples, (7, 5)",
    ...{ shape: [7, 5], counts: [4, 0, 3], weights: "perSample", more: true },
  },
  {
    name: "weights of samples, (9, 2, 2, 3)",
    ...{ shape: [9, 2, 2, 3], counts: [9], weights: "perSample", more: true },
  },
  {
    name: "lengths, (4, 3, 5), channels last, float16",
    ...{ shape: [4, 3, 5], counts: [2, 2], format: "channelsLast", dtype: "float16" },
    ...{ weights: "lengths", relu: true, more: true },
  },
  {
    name: "weights of places, (2, 4, 2, 3), channels last",
    ...{ shape: [2, 4, 2, 3], counts: [0, 1, 1], format: "channelsLast", weights: "perPlace" },
    more: true,
  },
  {
    name: "weights of places, (3, 2, 18), neither weight nor bias, mean 100",
    ...{
      shape: [3, 2, 18],
      counts: [2, 1],
      affine: false,
      mean: 100,
      weights: "perPlace",
      more: true,
    },
  },
];

/** Scenarios of the law that a kit draws where its kernels are compiled already. */
const MANY = 100;

/** Whether a quick run on a device pays for every kernel that no other test has compiled. */
export function compiles<A>({ cases = MANY, tier }: DeviceKit<A>): boolean {
  return cases < MANY && tier !== "full";
}

const MODES = ["training", "training over ranks", "evaluation"] as const;
type Mode = typeof MODES[number];

/** Registers the tests of second order for a device. */
export function secondOrderSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);
  const few = compiles(kit);
  // Weights have kernels of their own, where kernels are compiled.
  const isDear = (options: Case) => options.weights !== undefined && kit.ways !== undefined;
  for (const options of CASES) {
    if (options.more && (few || (isDear(options) && options.dtype !== "float16"))) continue;
    test(`second order equals central differences: ${options.name}`, async (device) => {
      if (options.dtype === "float16" && !device.info.float16) return;
      const problem = problemOf(options);
      // What compiles kernels for every case need not do so for every mode of each.
      const modes = !kit.ways ? MODES : options.relu ? [MODES[1]] : [MODES[0], MODES[2]];
      for (const mode of modes) await check(device, kit.ulps, problem, mode);
    });
  }

  // A shape for each case would be kernels for each.
  if (few) return;
  const drawn = "second order equals central differences: any shape, partition and weights";
  if (kit.ways === undefined) {
    test(drawn, async (device) => {
      const cases = fc.record({
        counts: fc.array(fc.nat(2), { minLength: 1, maxLength: 3 }).map((counts) => [...counts, 3]),
        channels: fc.integer({ min: 1, max: 4 }),
        inner: fc.integer({ min: 2, max: 5 }),
        weights: fc.constantFrom<Case["weights"]>("perPlace", "perSample", "lengths", undefined),
        format: fc.constantFrom<Format>("channelsFirst", "channelsLast"),
        relu: fc.constantFrom<true | undefined>(true, undefined),
      });
      const property = fc.asyncProperty(cases, async ({ channels, inner, counts, ...options }) => {
        const samples = counts.reduce((sum, count) => sum + count, 0);
        const shape = [samples, channels, inner];
        // Few values may be close to each other, and differences know no derivatives that are large.
        const problem = problemOf({ name: "drawn", shape, counts, eps: 0.1, ...options });
        await check(device, kit.ulps, problem, "training over ranks");
      });
      await fc.assert(property, { numRuns: 10, seed: 27 });
    });
  }

  test("forward and reverse mode are adjoint, and a Hessian is symmetric", async (device) => {
    const batches = fc.record({
      samples: fc.integer({ min: 2, max: 6 }),
      channels: fc.integer({ min: 1, max: 5 }),
      inner: fc.integer({ min: 1, max: 9 }),
      seed: fc.nat(1000),
      format: fc.constantFrom<Format>("channelsFirst", "channelsLast"),
      weighted: kit.ways === undefined ? fc.boolean() : fc.constant(true),
    });
    await fc.assert(
      fc.asyncProperty(batches, async ({ samples, channels, inner, seed, format, weighted }) => {
        const put = (n: number) =>
          tensor(device, normalArray(samples * channels * inner, 10 * seed + n), [
            ...[samples, channels, inner],
          ], { format });
        const state = initBatchNorm(device, channels, { eps: 0.1 });
        const numbers = normalArray(samples, seed).map((value) => Math.max(0, value));
        numbers.fill(1, 0, 2); // One alone has no variance.
        const weights = weighted ? { weights: device.upload(numbers) } : {};
        const { saved } = batchNormForward(state, put(1), { device }, weights);
        const [dy, u, v] = [put(2), put(3), put(4)];
        const { gradInput } = batchNormBackward(saved, dy, { device });
        const along = batchNormJvp(saved, { input: u }, { device });
        await assertSame(device, kit.ulps, [along, dy], [u, gradInput], "adjoint");
        const [hu, hv] = [u, v].map((gradInput) =>
          batchNormBackwardBackward(saved, dy, { gradInput }, { device }).gradInput
        );
        await assertSame(device, kit.ulps, [v, hu], [u, hv], "symmetric");
      }),
      { numRuns: kit.ways === undefined ? 8 : 5, seed: 26 },
    );
  });
}

/** Fails unless the inner products of two pairs are equal as far as their terms go. */
async function assertSame<A>(
  device: Device<A>,
  ulps: number,
  one: readonly [Tensor<A>, Tensor<A>],
  other: readonly [Tensor<A>, Tensor<A>],
  what: string,
): Promise<void> {
  const inner = async ([a, b]: readonly [Tensor<A>, Tensor<A>]) => {
    const [x, y] = [await toArray(device, a), await toArray(device, b)];
    const terms = x.map((value, i) => value * y[i]);
    const size = terms.reduce((total, term) => total + Math.abs(term), 0);
    return { value: terms.reduce((total, term) => total + term, 0), size };
  };
  const [left, right] = [await inner(one), await inner(other)];
  // Both are sums of terms of float32, each as exact as the device.
  const slack = 4 * ulps * EPSILON.float32 * (1 + left.size + right.size);
  assert(Math.abs(left.value - right.value) <= slack, `${what}: ${left.value}, ${right.value}`);
}

/** All numbers of a case, in logical order, as the storage holds them. */
function problemOf(options: Case) {
  const { shape, mean = 0, dtype = "float32", arange } = options;
  const [samples, channels, ...spatial] = shape;
  const inner = spatial.reduce((product, extent) => product * extent, 1);
  const length = samples * channels * inner;
  const stored = (seed: number, mean = 0): Float32Array => {
    const values = normalArray(length, seed, mean);
    return dtype === "float16" ? Float32Array.from(Float16Array.from(values)) : values;
  };
  const x = arange ? Float32Array.from({ length }, (_, i) => i) : stored(1, mean);
  const weight = arange
    ? Float32Array.from({ length: channels }, (_, i) => i + 1)
    : normalArray(channels, 2, 1, 0.3);
  const running = {
    runningMean: normalArray(channels, 6, mean),
    runningVar: normalArray(channels, 7).map((value) => 0.5 + value * value),
  };
  const per = (seed: number) => normalArray(channels, seed);
  return {
    ...{ options, channels, inner, samples, x, running, ...weightsOf(options, samples, inner) },
    residual: stored(4),
    dy: stored(5),
    parameters: {
      weight: options.affine === false ? null : weight,
      bias: per(3),
      eps: options.eps ?? 1e-5,
    },
    directions: { input: stored(8), weight: per(9), bias: per(10), residual: stored(11) },
  };
}

/** A weight for each place of each sample, or null, and lengths where they are what is given. */
function weightsOf({ weights }: Case, samples: number, inner: number) {
  const lengths = Int32Array.from({ length: samples }, (_, n) => (3 * n + 2) % (inner + 1));
  const of = (n: number, i: number) =>
    weights === "lengths"
      ? +(i < lengths[n])
      : weights === "perSample"
      ? n % 3 / 2
      : (n + i) % 4 / 2;
  const counting = weights
    ? Float32Array.from({ length: samples * inner }, (_, p) => of(Math.floor(p / inner), p % inner))
    : null;
  return { counting, lengths };
}

type Problem = ReturnType<typeof problemOf>;

/** Rank r's own direction of gradWeight and gradBias: (C) of the whole batch's, by another factor for each rank. */
const factorOf = (mode: Mode, rank: number) => mode === "training over ranks" ? 1 + rank / 2 : 1;

/** Central differences in float64, of what is linear too. */
function expectedOf({ options, channels, inner, counting, ...problem }: Problem, mode: Mode) {
  const { relu = false, affine } = options;
  const { x, dy, residual, parameters, directions, running } = problem;
  const bias = affine === false ? null : parameters.bias;
  const batch = (values: ArrayLike<number>) => ({ values, channels, inner });
  const statisticsOf = (values: ArrayLike<number>): oracle.ChannelStats =>
    mode === "evaluation"
      ? { count: 0, mean: [...running.runningMean], variance: [...running.runningVar] }
      : oracle.statistics(batch(values), counting);
  const { eps } = parameters;
  const linear = (
    x: ArrayLike<number>,
    weight: ArrayLike<number> | null,
    b: ArrayLike<number> | null,
    r: ArrayLike<number>,
  ) => oracle.forward(batch(x), statisticsOf(x), { weight, bias: b, eps }, relu ? r : null, false);
  const gates = linear(x, parameters.weight, bias, residual).map((y) => !relu || y > 0);

  const moved = (h: number) => {
    const to = (from: ArrayLike<number>, along: ArrayLike<number>) =>
      Array.from(from, (value, i) => value + h * along[i]);
    return linear(
      to(x, directions.input),
      parameters.weight && to(parameters.weight, directions.weight),
      bias && to(bias, directions.bias),
      to(residual, directions.residual),
    );
  };
  const step = 1e-4;
  const [above, below] = [moved(step), moved(-step)];
  const jvp = above.map((value, i) => gates[i] ? (value - below[i]) / (2 * step) : 0);

  /** Which rank an element belongs to. */
  const rankOf = (i: number): number => {
    const sample = Math.floor(i / (channels * inner));
    let end = 0;
    return options.counts.findIndex((count) => sample < (end += count));
  };
  const { input: a, weight: q, bias: b, residual: r } = directions;
  /** The inner product of the directions with all that backward returns. */
  const loss = (
    x: ArrayLike<number>,
    gradOutput: ArrayLike<number>,
    weight: ArrayLike<number> | null,
  ) => {
    const { mean, variance } = statisticsOf(x);
    const passed = Array.from(gradOutput, (value, i) => gates[i] ? value : 0);
    const dx = mode === "evaluation"
      ? passed.map((value, i) => {
        const c = Math.floor(i / inner) % channels;
        return (weight?.[c] ?? 1) * value / Math.sqrt(variance[c] + eps);
      })
      : oracle.trainBackward(batch(x), passed, { weight, bias: null, eps }, counting).gradInput;
    return passed.reduce((total, value, i) => {
      const c = Math.floor(i / inner) % channels;
      const xhat = (x[i] - mean[c]) / Math.sqrt(variance[c] + eps);
      const factor = factorOf(mode, rankOf(i));
      const ofWeight = affine === false ? 0 : factor * (q[c] * xhat + b[c]);
      return total + a[i] * dx[i] + value * (ofWeight + (relu ? r[i] : 0));
    }, 0);
  };
  /** What all ranks together give for the direction of the mean, or of the variance. */
  const summed = options.counts.reduce((total, _, rank) => total + factorOf(mode, rank), 0) /
    (mode === "training over ranks" ? 1 : options.counts.length);
  const withMoments = (x: ArrayLike<number>) => {
    const { mean, variance } = statisticsOf(x);
    const y = linear(x, parameters.weight, bias, residual);
    const ofMoments = mean.map((m, c) => summed * (q[c] * m + b[c] * variance[c]));
    return [...y.map((value, i) => gates[i] ? dy[i] * value : 0), ...ofMoments].reduce(
      (u, v) => u + v,
      0,
    );
  };
  return {
    jvp,
    ...(mode !== "evaluation" && { moments: oracle.centralDifferences(withMoments, x, step) }),
    gradInput: oracle.centralDifferences((values) => loss(values, dy, parameters.weight), x, step),
    gradGradOutput: oracle.centralDifferences(
      (values) => loss(x, values, parameters.weight),
      dy,
      step,
    ),
    gradWeight: parameters.weight &&
      oracle.centralDifferences((values) => loss(x, dy, values), parameters.weight, step),
  };
}

async function check<A>(
  device: Device<A>,
  ulps: number,
  problem: Problem,
  mode: Mode,
): Promise<void> {
  const { options, channels, inner, samples, parameters, directions, running } = problem;
  const { format = "channelsFirst", dtype = "float32", relu, counts } = options;
  const { weight, bias, eps } = parameters;
  const expected = expectedOf(problem, mode);
  const state = stateFromHost(device, {
    ...{ numFeatures: channels, eps, momentum: 0.1, ...running, numBatchesTracked: 1 },
    ...{ weight, bias: weight && bias },
  });
  const [, , ...spatial] = options.shape;
  const other: Format = format === "channelsFirst" ? "channelsLast" : "channelsFirst";
  const slice = (values: ArrayLike<number>, format: Format, from: number, to: number) => {
    const part = Float32Array.from(values).slice(from * channels * inner, to * channels * inner);
    const ordered = format === "channelsLast"
      ? oracle.permute(part, { channels, inner }, format)
      : part;
    return tensor(device, ordered, [to - from, channels, ...spatial], { format, dtype });
  };
  const read = async (tensor: Tensor<A>) => {
    assert.equal(tensor.format, format);
    const values = await toArray(device, tensor);
    return [
      ...format === "channelsLast"
        ? oracle.permute(values, { channels, inner }, "channelsFirst")
        : values,
    ];
  };
  const weighing = (from: number, to: number): WeightOptions<A> => {
    const { counting, lengths } = problem;
    if (counting === null) return {};
    if (options.weights === "lengths") return { lengths: lengths.slice(from, to) };
    const own = counting.slice(from * inner, to * inner);
    if (options.weights === "perPlace") {
      return { weights: tensor(device, own, [to - from, 1, ...spatial], { format, dtype }) };
    }
    return { weights: device.upload(own.filter((_, p) => p % inner === 0)) };
  };
  const rank = async (from: number, to: number, factor: number, group?: ReduceGroup) => {
    const put = (values: ArrayLike<number>, format: Format) => slice(values, format, from, to);
    const [input, gradOutput] = [put(problem.x, format), put(problem.dy, other)];
    const vector = (values: Float32Array, by: number) =>
      weight && device.upload(values.map((v) => v * by));
    const options = {
      ...(relu && { activation: "relu", residual: put(problem.residual, other) } as const),
      ...weighing(from, to),
    };
    const residual = relu ? { residual: put(directions.residual, other) } : {};
    const tangents = {
      ...{ input: put(directions.input, other), ...residual },
      ...{ weight: vector(directions.weight, 1), bias: vector(directions.bias, 1) },
    };
    const cotangents = {
      gradInput: put(directions.input, format),
      ...{
        gradWeight: vector(directions.weight, factor),
        gradBias: vector(directions.bias, factor),
      },
      ...(residual.residual && { gradResidual: residual.residual }),
    };
    const ofMoments = (values: Float32Array) => device.upload(values.map((v) => v * factor));
    const momentsOf = () => ({
      ...{ dmean: ofMoments(directions.weight), dvariance: ofMoments(directions.bias) },
    });
    const results = async () => {
      if (mode === "evaluation") {
        return {
          moments: null,
          jvp: batchNormInferJvp(state, input, tangents, { device }, options),
          ...batchNormInferBackwardBackward(
            state,
            input,
            gradOutput,
            cotangents,
            { device },
            options,
          ),
        };
      }
      if (!group) {
        const { saved } = batchNormForward(state, input, { device }, options);
        return {
          moments: batchNormBackwardMoments(saved, gradOutput, momentsOf(), { device }).gradInput,
          jvp: batchNormJvp(saved, tangents, { device }),
          ...batchNormBackwardBackward(saved, gradOutput, cotangents, { device }),
        };
      }
      const effects = { device, group };
      const { saved } = await syncBatchNormForward(state, input, effects, options);
      const donated = put(problem.dy, other);
      const donate = { donate: true };
      return {
        moments: (await syncBatchNormBackwardMoments(saved, donated, momentsOf(), effects, donate))
          .gradInput,
        jvp: await syncBatchNormJvp(saved, tangents, effects),
        ...await syncBatchNormBackwardBackward(saved, gradOutput, cotangents, effects),
      };
    };
    const { jvp, moments, gradInput, gradGradOutput, gradWeight } = await results();
    return {
      moments: moments && await read(moments),
      jvp: await read(jvp),
      gradInput: await read(gradInput),
      gradGradOutput: await read(gradGradOutput),
      gradWeight: gradWeight && [...await device.download(gradWeight)],
    };
  };
  const ends = counts.map((_, i) => counts.slice(0, i + 1).reduce((a, b) => a + b));
  const parts = mode === "training over ranks"
    ? await runRanks(
      counts.length,
      (group) =>
        rank(
          ends[group.rank] - counts[group.rank],
          ends[group.rank],
          factorOf(mode, group.rank),
          group,
        ),
    )
    : [await rank(0, samples, 1)];
  // Central differences of float64 are good to about step^2 plus 1e-16 * |loss| / step; storage to half a unit.
  const closeTo = (actual: number[], wanted: number[], storage: DType, what: string) => {
    const largest = Math.max(...wanted.map(Math.abs), 1);
    const absolute =
      (2e-6 + ulps * EPSILON.float32 + (storage === "float16" ? EPSILON.float16 : 0)) * largest;
    assertClose(actual, wanted, { absolute, relative: 0 }, `${mode}: ${what}`);
  };
  for (const name of ["jvp", "gradInput", "gradGradOutput"] as const) {
    closeTo(parts.flatMap((part) => part[name]), expected[name], dtype, name);
  }
  if (expected.moments) {
    const all = parts.flatMap(({ moments }) => moments!);
    closeTo(all, expected.moments, dtype, "gradInput with gradients of the moments");
  }
  const weights = parts.map(({ gradWeight }) => gradWeight);
  if (expected.gradWeight === null) return assert.deepEqual(weights, weights.map(() => null));
  const total = weights.reduce((a, b) => a!.map((value, c) => value + b![c]));
  closeTo(total!, expected.gradWeight, "float32", "gradWeight");
}
