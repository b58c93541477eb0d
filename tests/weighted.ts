/** Batches whose examples have weights: how they are drawn, and what float64 formulas give of them, without the library. */

import fc from "fast-check";
import type { DType, Format } from "../mod.ts";
import { halves } from "./halves.ts";
import { fewOf } from "./few.ts";
import { normals, uniforms } from "./random.ts";

/** How the weights of a batch are given. */
const KINDS = ["mask", "weights", "perSample", "lengths", "none positive"] as const;

/** One batch, its weights, one partition of it over ranks, one configuration. */
export interface WeightedScenario {
  readonly counts: readonly number[];
  readonly channels: number;
  readonly inner: number;
  readonly kind: typeof KINDS[number];
  readonly format: Format;
  readonly gradFormat: Format;
  readonly dtype: DType;
  readonly eps: number;
  readonly affine: boolean;
  readonly relu: boolean;
  readonly residual: boolean;
  /** A mean that is a million times the deviation, a first value that counts far from all others, or neither. */
  readonly spread: "standard" | "offset" | "outlierFirst";
  readonly seed: number;
}

/** Any partition over 1 to 4 ranks of any batch (N, C, L), by any weights. */
export function weightedScenarios(
  float16: boolean,
  ways?: number,
): fc.Arbitrary<WeightedScenario> {
  const format = fc.constantFrom<Format>("channelsFirst", "channelsLast");
  const way = fc.record({
    channels: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.constantFrom(8, 20)),
    inner: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constantFrom(16, 36)),
    kind: fc.constantFrom(...KINDS.slice(0, 4), ...KINDS),
    ...{ format, gradFormat: format },
    dtype: float16 ? fc.constantFrom<DType>("float32", "float16") : fc.constant<DType>("float32"),
    ...{ affine: fc.boolean(), relu: fc.boolean(), residual: fc.boolean() },
  });
  const rest = fc.record({
    counts: fc.array(fc.nat(4), { minLength: 1, maxLength: 4 }),
    eps: fc.constantFrom(1e-5, 1e-3, 0),
    spread: fc.constantFrom("standard", "offset", "outlierFirst"),
    seed: fc.nat(2 ** 31 - 1),
  });
  return fc.tuple(fewOf(way, ways), rest).map(([way, rest]) => ({ ...way, ...rest }));
}

/** The numbers of a batch in channels-first order; a weight for each sample and place. */
export interface WeightedData {
  readonly x: Float32Array;
  readonly dy: Float32Array;
  readonly residual: Float32Array;
  readonly weights: Float32Array;
  /** Of kind `"lengths"`. */
  readonly lengths: Int32Array;
}

/** Makes the numbers of a scenario: what has weight 0 is NaN now and then, and has no gradient. */
export function weightedData(scenario: WeightedScenario): WeightedData {
  const { counts, channels, inner, kind, dtype, relu, spread, seed } = scenario;
  const samples = counts.reduce((sum, count) => sum + count, 0);
  const [normal, uniform] = [normals(seed), uniforms(seed ^ 0x77)];
  const lengths = Int32Array.from({ length: samples }, () => Math.floor(uniform() * (inner + 1)));
  const perSample = Float32Array.from({ length: samples }, () => Math.floor(4 * uniform()) / 2);
  const weights = Float32Array.from({ length: samples * inner }, (_, p) => {
    const n = Math.floor(p / inner);
    if (kind === "mask") return uniform() < 0.6 ? 1 : 0;
    if (kind === "weights") return uniform() < 0.3 ? 0 : 3 * uniform();
    if (kind === "perSample") return perSample[n];
    return kind === "lengths" ? +(p % inner < lengths[n]) : 0;
  });
  const stored = (values: Float32Array) => dtype === "float16" ? halves(values) : values;
  const length = samples * channels * inner;
  const draw = (make: () => number) => stored(Float32Array.from({ length }, make));
  const x = draw(() =>
    spread === "offset" && dtype === "float32" ? 1e3 + 1e-3 * normal() : 3 + 2 * normal()
  );
  const [dy, residual] = [draw(normal), draw(normal)];
  for (let i = 0; i < length; i++) {
    if (weights[weightAt(i, channels, inner)] > 0) continue;
    if (i % 3 > 0) dy[i] = 0;
    if (i % 3 === 2) x[i] = NaN;
  }
  if (spread === "outlierFirst") {
    const first = Math.max(0, weights.findIndex((weight) => weight > 0));
    const at = Math.floor(first / inner) * channels * inner + first % inner;
    for (let c = 0; c < channels && length > 0; c++) x[at + c * inner] = 1e4;
  }
  if (relu) {
    const { y } = weightedOracle(scenario, { x, dy, residual, weights, lengths });
    y.forEach((value, i) => {
      if (Math.abs(value) < (dtype === "float16" ? 1e-2 : 1e-3)) dy[i] = 0;
    });
  }
  return { x, dy, residual, weights, lengths };
}

/** Weight and bias of a scenario. */
export function affineOf({ affine, channels }: WeightedScenario) {
  const vector = (of: (c: number) => number) =>
    Float32Array.from({ length: channels }, (_, c) => of(c));
  return affine ? { weight: vector((c) => 1 + c / 8), bias: vector((c) => 0.5 - c / 4) } : null;
}

/** Where the weight of an element of channels-first order stands. */
export function weightAt(i: number, channels: number, inner: number): number {
  return Math.floor(i / (channels * inner)) * inner + i % inner;
}

/** What float64 formulas give of a batch and its weights, and how large the terms of y and dx are. */
export function weightedOracle(
  { channels: C, inner, eps, relu, residual: added, affine }: WeightedScenario,
  { x, dy, residual, weights }: WeightedData,
) {
  const { weight, bias } = affineOf({ channels: C, affine } as WeightedScenario) ?? {};
  const channels = Uint32Array.from(x, (_, i) => Math.floor(i / inner) % C);
  const channelOf = (i: number) => channels[i];
  const w = Float64Array.from(x, (_, i) => weights[weightAt(i, C, inner)]);
  const sums = (term: (i: number, c: number) => number, counts: (i: number) => boolean) => {
    const all = new Float64Array(C);
    for (const [i, c] of channels.entries()) if (counts(i)) all[c] += term(i, c);
    return all;
  };
  const isPositive = (i: number) => w[i] > 0;
  const positives = weights.filter((value) => value > 0).length;
  const W = weights.reduce((sum, value) => sum + value, 0);
  const mean = sums((i) => w[i] * x[i], isPositive).map((sum) => W > 0 ? sum / W : 0);
  const variance = sums((i, c) => w[i] * (x[i] - mean[c]) ** 2, isPositive)
    .map((sum) => W > 0 ? sum / W : Infinity);
  const s = variance.map((v) => v + eps < 1e-18 ? 0 : 1 / Math.sqrt(v + eps));
  const y = Array.from(x, (value, i) => {
    const c = channelOf(i);
    const z = (value - mean[c]) * s[c] * (weight?.[c] ?? 1) + (bias?.[c] ?? 0) +
      (added ? residual[i] : 0);
    return relu ? (z <= 0 ? 0 : z) : z;
  });
  const g = Array.from(dy, (value, i) => !relu || y[i] > 0 ? value : 0);
  const flows = (i: number) => g[i] !== 0;
  const S1 = sums((i) => g[i], flows);
  const S2 = sums((i, c) => g[i] * (x[i] - mean[c]), flows);
  const A1 = sums((i) => Math.abs(g[i]), flows);
  const A2 = sums((i, c) => Math.abs(g[i]) * Math.max(1, Math.abs(x[i] - mean[c]) * s[c]), flows);
  const xhat = Array.from(
    x,
    (value, i) => Math.max(1, Math.abs(value - mean[channelOf(i)]) * s[channelOf(i)]) || 1,
  );
  const share = W > 0 ? 1 / W : 0;
  return {
    ...{ positives, W, mean, variance, y, s },
    dx: Array.from(x, (value, i) => {
      const c = channelOf(i);
      const shift = w[i] > 0 ? w[i] * (S1[c] + (value - mean[c]) * s[c] ** 2 * S2[c]) * share : 0;
      return (weight?.[c] ?? 1) * s[c] * (g[i] - shift);
    }),
    dresidual: g,
    dweight: S2.map((sum, c) => s[c] * sum),
    dbias: S1,
    terms: {
      y: xhat.map((value, i) =>
        value * (weight?.[channelOf(i)] ?? 1) + Math.abs(bias?.[channelOf(i)] ?? 0) +
        Math.abs(residual[i])
      ),
      dx: xhat.map((value, i) => {
        const c = channelOf(i);
        return (weight?.[c] ?? 1) * s[c] *
          (Math.abs(g[i]) + w[i] * share * (A1[c] + value * A2[c]));
      }),
      dbias: A1,
      dweight: A2,
    },
  };
}
