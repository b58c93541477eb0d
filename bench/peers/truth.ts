/**
 * What must come out, in float64, and how far a result is from it.
 *
 * @module
 */

import type { BatchShape } from "../batches.ts";
import * as oracle from "../../tests/oracle.ts";
import { EPS, extentsOf, type Numbers, type Results } from "./subject.ts";

/** Greatest distances from float64. */
export interface Errors {
  /** Of y, whose values are about 1. */
  readonly y: number;
  /** Of dx, whose values are about 1. */
  readonly dx: number;
  /** Of dweight and dbias, in units of the root of how many values they sum. */
  readonly sums: number;
}

/** Coefficients of one channel: y = (x - mean) * a + b, dx = dy * a + (x - mean) * slope + offset. */
interface Channel {
  readonly mean: number;
  readonly a: number;
  readonly b: number;
  readonly slope: number;
  readonly offset: number;
  readonly gradWeight: number;
  readonly gradBias: number;
}

/** The float64 results of one batch. */
export interface Truth {
  /** Compares all elements; NaN counts as infinitely far. */
  readonly errors: (results: Results) => Errors;
}

/**
 * Computes the truth of a batch from the tests' oracle, channel by channel: whole tensors of float64 would not fit.
 *
 * @param shape shape and format
 * @param numbers the batch, in that format
 * @returns what to compare with
 */
export function truthOf(shape: BatchShape, { x, dy, weight, bias }: Numbers): Truth {
  const { samples, channels, inner } = extentsOf(shape);
  const [stepSample, stepChannel, stepInner] = shape.format === "channelsLast"
    ? [inner * channels, 1, channels]
    : [channels * inner, inner, 1];
  const count = samples * inner;
  const [values, gradient] = [new Float32Array(count), new Float32Array(count)];

  const channelTruth = (c: number): Channel => {
    for (let n = 0, i = 0; n < samples; n++) {
      for (let j = 0; j < inner; j++, i++) {
        const p = n * stepSample + c * stepChannel + j * stepInner;
        values[i] = x[p];
        gradient[i] = dy[p];
      }
    }
    const batch = { values, channels: 1, inner: 1 };
    const { mean: [mean], variance: [variance] } = oracle.statistics(batch);
    const parameters = { weight: [weight[c]], bias: [bias[c]], eps: EPS };
    const { gradWeight: [gradWeight], gradBias: [gradBias] } = oracle.trainBackward(
      batch,
      gradient,
      parameters,
    );
    const invstd = 1 / Math.sqrt(variance + EPS);
    const a = weight[c] * invstd;
    return {
      ...{ mean, a, b: bias[c], gradWeight, gradBias },
      slope: -a * invstd * gradWeight / count,
      offset: -a * gradBias / count,
    };
  };
  const truth = Array.from({ length: channels }, (_, c) => channelTruth(c));
  // In memory order, channels last too: it is the cache that decides how long this takes.
  const run = shape.format === "channelsLast" ? 1 : inner;

  const errors = (results: Results): Errors => {
    let [worstY, worstDx, worstSum] = [0, 0, 0];
    for (let p = 0, c = 0; p < x.length; c = c + 1 === channels ? 0 : c + 1) {
      const { mean, a, b, slope, offset } = truth[c];
      for (const end = p + run; p < end; p++) {
        const d = x[p] - mean;
        const errorY = Math.abs(results.y[p] - (d * a + b));
        const errorDx = Math.abs(results.dx[p] - (dy[p] * a + d * slope + offset));
        if (!(errorY <= worstY)) worstY = orInfinity(errorY);
        if (!(errorDx <= worstDx)) worstDx = orInfinity(errorDx);
      }
    }
    for (const [c, { gradWeight, gradBias }] of truth.entries()) {
      for (const error of [results.gradWeight[c] - gradWeight, results.gradBias[c] - gradBias]) {
        if (!(Math.abs(error) <= worstSum)) worstSum = orInfinity(Math.abs(error));
      }
    }
    return { y: worstY, dx: worstDx, sums: worstSum / Math.sqrt(count) };
  };
  return { errors };
}

/** Infinity stays the worst, whatever comes after it. */
function orInfinity(error: number): number {
  return Number.isNaN(error) ? Infinity : error;
}
