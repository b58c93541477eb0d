/**
 * What the batch norms of Keras and Flax have in common, and ours has not: momentum is the weight of the OLD value, the
 * running variance is biased, channels are an axis of the memory order.
 *
 * A state whose `runningVariance` is `"biased"` trains and evaluates as theirs do. One that is unbiased has one running
 * variance for both: the way in takes `count` and makes training exact, or null and makes evaluation exact.
 */

import { checkShare } from "../../check_share.ts";
import { checkEps, checkHostState } from "../../check_state.ts";
import { checkFloat32, checkInteger, checkOneOf } from "../../check_value.ts";
import type { BatchNormState } from "../../state.ts";
import { type Format, FORMATS } from "../../tensor.ts";
import { refused, shown, wrongKind, wrongPair, wrongValue } from "../../words.ts";

/** A batch norm as it came from another framework. */
export interface ImportedBatchNorm {
  /** The state, on the host: `stateFromHost` puts it onto a device. */
  readonly state: BatchNormState<Float32Array>;
  /** How the layer's inputs lie in memory: the `format` of their tensors. */
  readonly format: Format;
}

/** Options of a batch norm's way in. */
export interface ImportBatchNormOptions {
  /**
   * Values per channel of a training batch, over all replicas: samples times positions, an integer >= 2. The running
   * variance is multiplied by count / (count - 1) on the way in, by (count - 1) / count on the way out, so that training
   * goes on as it would have. null takes it as it is, so that evaluation gives the same numbers.
   */
  readonly count: number | null;
  /**
   * `"biased"` (with a count of null) makes a state that keeps the biased variance: training and evaluation are both
   * exact. `"unbiased"` by default.
   */
  readonly runningVariance?: "unbiased" | "biased";
  /** Weight of the OLD value in the running statistics, in [0, 1], as the other framework has it; 0.99 by default. */
  readonly momentum?: number;
  /** Added to the variance before its root, finite and >= 0. */
  readonly epsilon?: number;
  /** Axis of the channels: 1, or -1 (by default) or rank - 1 for the last; or a list of it, as Keras 2 saves it. */
  readonly axis?: number | readonly [number];
  /** Number of axes of the layer's inputs, an integer >= 2, where `axis` is neither 1 nor -1. */
  readonly rank?: number;
  /** Batches that the running statistics have seen, which the other framework does not count; 0 by default. */
  readonly numBatchesTracked?: number;
}

/** Options of a batch norm's way out. */
export interface ExportBatchNormOptions extends Pick<ImportBatchNormOptions, "count"> {
  /** How the layer's inputs lie in memory; `"channelsLast"` (axis -1) by default. */
  readonly format?: Format;
}

/** What sets a framework apart from the other. */
export interface Framework {
  readonly called: string;
  readonly epsilon: number;
  /** What it calls our vectors. */
  readonly names: Readonly<Record<"weight" | "bias" | "runningMean" | "runningVar", string>>;
}

/** Makes a state of another framework's vectors and settings. */
export function importBatchNorm(
  weights: object,
  options: ImportBatchNormOptions,
  { called, names, epsilon: usual }: Framework,
): ImportedBatchNorm {
  const action = `convert the batch norm of ${called}`;
  const count = checkCount(options, action);
  const { momentum = 0.99, epsilon = usual, axis = -1, rank, numBatchesTracked = 0 } = options;
  const { runningVariance } = options;
  checkBiased(runningVariance, count, action);
  checkShare(momentum, "momentum, the weight of the old value,", action);
  checkEps(epsilon, action, "epsilon");
  checkInteger(numBatchesTracked, "numBatchesTracked", action, 0);
  const format = formatOf(axis, rank, action);
  const given = (weights ?? {}) as Readonly<Record<string, unknown>>;
  // A vector under another name would be left out without a word.
  const known: readonly string[] = Object.values(names);
  const other = Object.keys(given).find((name) => !known.includes(name));
  if (other !== undefined) {
    throw wrongKind(action, `its vectors must be named ${known.join(", ")}`, other, "name");
  }
  const { [names.runningMean]: mean } = given;
  checkFloat32(mean, names.runningMean, action);
  const numFeatures = mean.length;
  if (numFeatures === 0) {
    const noun = `length of ${names.runningMean}`;
    throw wrongValue(action, "there must be at least one channel", 0, noun);
  }
  const copy = (name: string): Float32Array => {
    const vector = given[name];
    checkFloat32(vector, name, action);
    if (vector.length === numFeatures) return new Float32Array(vector);
    const wanted = `the lengths of ${name} and ${names.runningMean} must be equal`;
    throw wrongPair(action, wanted, vector.length, numFeatures);
  };
  const copyIfAny = (name: string) => (given[name] ?? null) === null ? null : copy(name);
  const state = Object.freeze({
    numFeatures,
    eps: epsilon,
    momentum: complement(momentum),
    weight: copyIfAny(names.weight),
    bias: copyIfAny(names.bias),
    runningMean: copy(names.runningMean),
    runningVar: scaled(copy(names.runningVar), count, (n) => [n, n - 1]),
    ...(runningVariance !== undefined && { runningVariance }),
    numBatchesTracked,
  });
  return Object.freeze({ state, format });
}

/** Takes of a state what another framework wants; momentum is the weight of the OLD value. */
export function exportBatchNorm(
  state: BatchNormState<Float32Array>,
  options: ExportBatchNormOptions,
  { called }: Framework,
) {
  const action = `convert the batch norm to ${called}`;
  checkHostState(state, action);
  const count = checkCount(options, action);
  checkBiased(state.runningVariance, count, action);
  const { format = "channelsLast" } = options;
  checkOneOf(format, FORMATS, "format", action);
  const { weight, bias, runningMean, runningVar, momentum, eps } = state;
  if (runningMean === null || runningVar === null) {
    const wanted = `there must be running statistics, which each layer of ${called} has`;
    throw wrongKind(action, wanted, null, "runningMean");
  }
  if (typeof momentum !== "number") {
    const what = momentum === null ? "a cumulative average" : `the rule "${momentum.rule}"`;
    const why = `for ${what} has no counterpart in ${called}`;
    throw wrongKind(action, `momentum must be a number, ${why}`, momentum);
  }
  const vectors = {
    weight: weight && new Float32Array(weight),
    bias: bias && new Float32Array(bias),
    runningMean: new Float32Array(runningMean),
    runningVar: scaled(runningVar, count, (n) => [n - 1, n]),
  };
  const axis = format === "channelsFirst" ? 1 : -1;
  return { vectors, settings: { momentum: complement(momentum), epsilon: eps, axis } };
}

/**
 * Takes a weight from 1 as people do, in decimal: 0.01 of 0.99, where float64 has 0.010000000000000009.
 *
 * A weight of up to 15 decimal places comes back exactly when this is done twice. Others are subtracted in float64: for
 * weights in [0.5, 1] that is exact, so they come back too.
 */
export function complement(weight: number): number {
  // Float64 is within 2^-54 of any decimal in [0, 1], subtracting adds as much again: far less than 15 places show.
  const oneLess = (share: number) => Number((1 - share).toFixed(15));
  const decimal = oneLess(weight);
  return oneLess(decimal) === weight ? decimal : 1 - weight;
}

/** Each value times a fraction of integers, in float64 and rounded once; a copy where there is no count. */
function scaled(
  variance: Float32Array,
  count: number | null,
  factor: (count: number) => readonly [over: number, under: number],
): Float32Array {
  if (count === null) return new Float32Array(variance);
  const [over, under] = factor(count);
  return variance.map((value) => value * over / under);
}

/** A biased variance is taken as it is, both ways. */
function checkBiased(
  variance: "unbiased" | "biased" | undefined,
  count: number | null,
  action: string,
): void {
  checkOneOf(variance, ["unbiased", "biased", undefined], "runningVariance", action);
  if (variance !== "biased" || count === null) return;
  const wanted = "options.count must be null where the running variance is biased, as it is theirs";
  throw wrongValue(action, wanted, count);
}

function checkCount(options: ExportBatchNormOptions | undefined, action: string): number | null {
  const count: unknown = options?.count;
  if (count === null) return null;
  const wanted =
    "options.count must be an integer >= 2, the values per channel of a training batch " +
    "over all replicas, or null to take the running variance as it is";
  if (typeof count !== "number") throw wrongKind(action, wanted, count);
  if (!Number.isSafeInteger(count) || count < 2) throw wrongValue(action, wanted, count);
  return count;
}

/** In two axes both formats are the same memory, so it does not matter there that 1 and -1 are one axis. */
function formatOf(given: unknown, rank: number | undefined, action: string): Format {
  const axis: unknown = Array.isArray(given) && given.length === 1 ? given[0] : given;
  if (typeof axis !== "number") {
    const came = Array.isArray(axis) ? `[${axis.map(shown).join(", ")}]` : shown(axis);
    throw refused(action, "axis must be a number, or a list of one", `value is ${came}`);
  }
  if (rank !== undefined) checkInteger(rank, "rank", action, 2);
  if (axis === -1 || (axis !== 1 && axis + 1 === rank)) return "channelsLast";
  if (axis === 1 || (rank !== undefined && axis === 1 - rank)) return "channelsFirst";
  throw new RangeError(
    `Cannot ${action} as axis must be 1, or -1 or rank - 1 for the last: current value is ${axis} ` +
      `with ${rank === undefined ? "no rank given" : `rank ${rank}`}`,
  );
}
