/**
 * Scenarios: one batch, one partition of it over ranks, one configuration; and the numbers that follow from them.
 * Plain data, so that a scenario can be printed, replayed and sent to another thread or process.
 */

import fc from "fast-check";
import type { BatchNormState, DType, Format } from "../mod.ts";
import { halves } from "./halves.ts";
import * as oracle from "./oracle.ts";
import { fewOf } from "./few.ts";
import { normals } from "./random.ts";

/** How the values of a batch are spread. */
const SPREADS = ["standard", "offset", "constant", "outlierFirst", "zeroFirst", "tiny"] as const;

/** One batch, one partition of it, one configuration. */
export interface Scenario {
  readonly counts: readonly number[];
  readonly channels: number;
  readonly spatial: readonly number[];
  readonly format: Format;
  readonly gradFormat: Format;
  readonly dtype: DType;
  readonly eps: number;
  readonly momentum: number | null;
  readonly scale: boolean;
  readonly bias: boolean;
  readonly tracked: boolean;
  readonly update: boolean;
  readonly relu: boolean;
  readonly residual: Format | null;
  readonly spread: typeof SPREADS[number];
  readonly steps: number;
  readonly seed: number;
}

/**
 * Any partition over 1..8 ranks (uneven, empty, one value on a rank, all empty) of any batch, in any configuration, or in
 * one of so many.
 */
export function scenarios(float16: boolean, ways?: number): fc.Arbitrary<Scenario> {
  const format = fc.constantFrom<Format>("channelsFirst", "channelsLast");
  const way = fc.record({
    channels: fc.integer({ min: 1, max: 5 }),
    spatial: fc.array(
      fc.oneof(
        { weight: 15, arbitrary: fc.integer({ min: 1, max: 4 }) },
        { weight: 1, arbitrary: fc.constant(0) },
      ),
      { maxLength: 3 },
    ),
    format,
    gradFormat: format,
    dtype: float16 ? fc.constantFrom<DType>("float32", "float16") : fc.constant<DType>("float32"),
    scale: fc.boolean(),
    bias: fc.boolean(),
    tracked: fc.boolean(),
    relu: fc.boolean(),
    residual: fc.option(format),
  });
  const rest = fc.record({
    counts: fc.oneof(
      { weight: 6, arbitrary: fc.array(fc.nat(4), { minLength: 1, maxLength: 8 }) },
      { weight: 2, arbitrary: fc.array(fc.nat(1), { minLength: 1, maxLength: 8 }) },
      { weight: 1, arbitrary: fc.array(fc.constant(0), { minLength: 1, maxLength: 8 }) },
    ),
    eps: fc.constantFrom(1e-5, 1e-3, 0),
    momentum: fc.constantFrom(0.1, 0.99, 1, 0, null),
    update: fc.boolean(),
    spread: fc.constantFrom(...SPREADS),
    steps: fc.integer({ min: 1, max: 2 }),
    seed: fc.nat(2 ** 31 - 1),
  });
  return fc.tuple(fewOf(way, ways), rest).map(([way, rest]) => ({ ...way, ...rest }));
}

/** One step's numbers of the whole batch, channels-first and exactly representable in the dtype. */
export interface StepData {
  readonly x: Float32Array;
  readonly dy: Float32Array;
  readonly residual: Float32Array;
}

/** Product of the spatial extents. */
export function innerOf({ spatial }: Scenario): number {
  return spatial.reduce((product, extent) => product * extent, 1);
}

/** Samples of the whole batch. */
export function samplesOf({ counts }: Scenario): number {
  return counts.reduce((total, count) => total + count, 0);
}

/** First sample of a rank, and the first of the next. */
export function sliceOf({ counts }: Scenario, rank: number): readonly [number, number] {
  const from = counts.slice(0, rank).reduce((total, count) => total + count, 0);
  return [from, from + counts[rank]];
}

/** The state that every rank starts with, on the host. */
export function firstState(scenario: Scenario): BatchNormState<Float32Array> {
  const { channels, eps, momentum, scale, bias, tracked, seed } = scenario;
  const normal = normals(seed ^ 0x5eed);
  const vector = (mean: number, std: number) =>
    Float32Array.from({ length: channels }, () => mean + std * normal());
  return {
    numFeatures: channels,
    eps,
    momentum,
    weight: scale ? vector(1, 0.5) : null,
    bias: bias ? vector(0, 0.5) : null,
    runningMean: tracked ? vector(0, 1) : null,
    runningVar: tracked ? vector(0, 1).map((v) => v * v) : null,
    numBatchesTracked: 0,
  };
}

/** Makes the numbers of all steps. */
export function makeSteps(scenario: Scenario): StepData[] {
  return Array.from({ length: scenario.steps }, (_, step) => makeStep(scenario, step));
}

function makeStep(scenario: Scenario, step: number): StepData {
  const { seed, spread, dtype, channels, relu, residual } = scenario;
  const inner = innerOf(scenario);
  const length = samplesOf(scenario) * channels * inner;
  const normal = normals(seed + 1 + step);
  const stored = (values: Float32Array) => dtype === "float16" ? halves(values) : values;
  const channelOf = (i: number) => Math.floor(i / inner) % channels;
  const isFirst = (i: number) => i < channels * inner && i % inner === 0;
  const x = stored(Float32Array.from({ length }, (_, i) => {
    const value = normal();
    if (spread === "offset") return 1e3 + 1e-3 * value;
    if (spread === "constant") return [0.1, 1e3, -7.3, 0, 1e-3][channelOf(i)];
    if (spread === "outlierFirst") return isFirst(i) ? 1e4 : value;
    if (spread === "zeroFirst") return isFirst(i) ? 0 : 100 + value;
    return spread === "tiny" ? 1e-3 * value : value;
  }));
  const added = stored(Float32Array.from({ length }, normal));
  const dy = stored(Float32Array.from({ length }, normal));
  if (relu) {
    // The gradient jumps where the output is 0: no arithmetic is to be blamed for the side it comes out on.
    const batch = { values: x, channels, inner };
    const z = oracle.trainForward(batch, firstState(scenario), residual && added);
    z.forEach((value, i) => {
      if (Math.abs(value) < (dtype === "float16" ? 1e-2 : 1e-4)) dy[i] = 0;
    });
  }
  return { x, dy, residual: added };
}
