/** One batch, and two ways of cutting, ordering and storing it, which must not be told apart. Plain data. */

import fc from "fast-check";
import type { BatchNormState, DType, Format } from "../../mod.ts";
import { halves } from "../halves.ts";
import { normals, uniforms } from "../random.ts";

/** How the values of a batch are spread. */
const SPREADS = [
  "standard",
  "offset",
  "constant",
  "sparse",
  "outliers",
  "broad",
  "wide",
  "subnormal",
  "special",
] as const;

/** How examples count: not at all, by a mask, by whole weights small and large, by the lengths of sequences; or none counts. */
const WEIGHTS = ["alike", "mask", "small", "large", "lengths", "none"] as const;

/** A batch and its configuration. */
export interface ExactBatch {
  readonly samples: number;
  readonly channels: number;
  readonly spatial: readonly number[];
  readonly dtype: DType;
  readonly eps: number;
  readonly momentum: number | null;
  readonly affine: boolean;
  readonly relu: boolean;
  readonly residual: boolean;
  readonly biased: boolean;
  readonly spread: typeof SPREADS[number];
  /** Lengths of what is no sequence are a mask. */
  readonly weights: typeof WEIGHTS[number];
  /** Whether weights are those of whole samples. */
  readonly perSample: boolean;
  readonly seed: number;
}

/** Who holds which samples, in which order, and how they lie in memory. */
export interface Partition {
  /** The rank of each sample; ranks may have none. */
  readonly ranks: number;
  /** Order of the samples, and where each goes, are drawn from it. */
  readonly seed: number;
  readonly format: Format;
  readonly gradFormat: Format;
}

/** What must give the same bits. */
export interface ExactScenario {
  readonly batch: ExactBatch;
  readonly partition: Partition;
}

/** Draws scenarios. */
export function exactScenarios(most = 24): fc.Arbitrary<ExactScenario> {
  const format = fc.constantFrom<Format>("channelsFirst", "channelsLast");
  return fc.record({
    batch: fc.record({
      samples: fc.integer({ min: 2, max: most }),
      channels: fc.integer({ min: 1, max: 6 }),
      spatial: fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 2 }),
      dtype: fc.constantFrom<DType>("float32", "float16"),
      eps: fc.constantFrom(1e-5, 0, 1e-3),
      momentum: fc.constantFrom(0.1, 0.99, 1, 0, 0.5, null),
      affine: fc.boolean(),
      relu: fc.boolean(),
      residual: fc.boolean(),
      biased: fc.boolean(),
      spread: fc.constantFrom(...SPREADS),
      weights: fc.constantFrom("alike" as const, ...WEIGHTS),
      perSample: fc.boolean(),
      seed: fc.nat(2 ** 31 - 1),
    }),
    partition: fc.record({
      ranks: fc.integer({ min: 1, max: 8 }),
      seed: fc.nat(2 ** 31 - 1),
      format,
      gradFormat: format,
    }),
  });
}

/** Product of the spatial extents. */
export function innerOf({ spatial }: ExactBatch): number {
  return spatial.reduce((product, extent) => product * extent, 1);
}

/** The numbers of a batch, channels first, sample by sample. */
export interface ExactData {
  readonly x: Float32Array;
  readonly dy: Float32Array;
  readonly residual: Float32Array;
  /** A direction of x. */
  readonly along: Float32Array;
}

const made = new WeakMap<ExactBatch, ExactData>();

/** The numbers of a batch, which the ranks of one thread share. */
export function dataOf(batch: ExactBatch): ExactData {
  const known = made.get(batch);
  if (known) return known;
  const data = makeData(batch);
  made.set(batch, data);
  return data;
}

function makeData(batch: ExactBatch): ExactData {
  const { samples, channels, dtype, spread, seed } = batch;
  const length = samples * channels * innerOf(batch);
  const [normal, uniform] = [normals(seed), uniforms(seed ^ 0x5eed)];
  const most = dtype === "float16" ? 12 : 120;
  const value = (i: number): number => {
    const z = normal();
    if (spread === "offset") return 1e3 + z;
    if (spread === "constant") {
      return [0.1, 1e3, -7.3, 0, 1e-3, 3][Math.floor(i / innerOf(batch)) % channels];
    }
    if (spread === "sparse") return z > 0 ? z : 0;
    if (spread === "outliers") return uniform() < 0.05 ? z * 2 ** (most * uniform() / 2) : z;
    if (spread === "broad") return z * 2 ** (Math.min(most, 14) * (2 * uniform() - 1));
    if (spread === "wide") return z * 2 ** (most * (2 * uniform() - 1));
    if (spread === "subnormal") return z * 2 ** -140;
    return spread === "special" && uniform() < 0.03 ? [NaN, Infinity, -Infinity][i % 3] : z;
  };
  const stored = (values: Float32Array) => dtype === "float16" ? halves(values) : values;
  const make = () => stored(Float32Array.from({ length }, (_, i) => value(i)));
  return { x: make(), dy: make(), residual: make(), along: make() };
}

/** Weights of a batch: how many each sample has, and their numbers; or lengths. Some two places count, or none. */
export function weightsOf(batch: ExactBatch):
  | { readonly each: number; readonly values: Float32Array }
  | { readonly lengths: Int32Array }
  | null {
  const { samples, spatial, weights, perSample, seed } = batch;
  if (weights === "alike") return null;
  const uniform = uniforms(seed ^ 0x3e1);
  const inner = innerOf(batch);
  if (weights === "lengths" && spatial.length === 1) {
    const drawn = () => Math.floor(uniform() * (inner + 1));
    return { lengths: Int32Array.from({ length: samples }, (_, n) => n < 2 ? inner : drawn()) };
  }
  const each = perSample ? 1 : inner;
  const most = { mask: 2, lengths: 2, small: 5, large: 2 ** 24 + 1, none: 1 }[weights];
  const values = Float32Array.from({ length: samples * each }, (_, i) => {
    // All together have to be below 2^32.
    const drawn = Math.floor(uniform() * (i * inner / each < 200 ? most : Math.min(most, 3)));
    return weights !== "none" && i % each === 0 && i < 2 * each ? Math.max(1, drawn) : drawn;
  });
  return { each, values };
}

/** The state that every rank starts with, on the host. */
export function stateOf(batch: ExactBatch): BatchNormState<Float32Array> {
  const { channels, eps, momentum, affine, biased, seed } = batch;
  const normal = normals(seed ^ 0xfade);
  const vector = (mean: number) => Float32Array.from({ length: channels }, () => mean + normal());
  return {
    numFeatures: channels,
    eps,
    momentum,
    weight: affine ? vector(1) : null,
    bias: affine ? vector(0) : null,
    runningMean: vector(0),
    runningVar: vector(0).map((v) => v * v),
    ...(biased && { runningVariance: "biased" as const }),
    numBatchesTracked: 0,
  };
}

/** The samples of each rank, in an order of its own. */
export function rowsOf(
  { samples }: ExactBatch,
  { ranks, seed }: Partition,
): readonly (readonly number[])[] {
  const uniform = uniforms(seed);
  const order = Array.from({ length: samples }, (_, i) => [uniform(), i] as const)
    .sort(([a], [b]) => a - b);
  const rows = Array.from({ length: ranks }, (): number[] => []);
  for (const [, sample] of order) rows[Math.floor(uniform() * ranks)].push(sample);
  return rows;
}
