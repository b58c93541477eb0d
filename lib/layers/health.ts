/** What a state says of a training: collapsed channels, drift, numbers that are not finite, ranks that differ. */

import { checkDevice, checkGroup } from "../check_effects.ts";
import { checkState } from "../check_state.ts";
import type { ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { combineMoments } from "../moments.ts";
import { checkMoments, type Moments } from "../norm/statistics.ts";
import { type BatchNormState, stateToHost } from "../state.ts";
import { formatOn, momentsWire } from "../wire.ts";
import { refused, shown, wrongKind, wrongValue } from "../words.ts";

/** What {@linkcode describe} is given beside the state. */
export interface DescribeOptions<A> {
  /** Moments of the latest batch, to tell how far the running statistics are from it. */
  readonly moments?: Moments<A>;
  /** A channel whose running variance is at most this has collapsed, in the square of the input's unit; eps by default. */
  readonly collapsedBelow?: number;
}

/** The health of one batch norm. Plain data: it travels, and a list of them over training is a history. */
export interface Health {
  /** Batches seen. */
  readonly batches: number;
  /** Number of channels. */
  readonly channels: number;
  /** Channels whose running variance has collapsed. */
  readonly collapsed: readonly number[];
  /** Channels with a number that is not finite: weight, bias, a running statistic, or the batch's. */
  readonly nonFinite: readonly number[];
  /** Least running variance. */
  readonly leastVariance: number;
  /** Largest distance of a batch's mean from the running one, in running standard deviations; null without moments. */
  readonly meanDrift: number | null;
  /** Largest |log2| of a batch's variance over the running one, both with eps added; null without moments. */
  readonly varianceDrift: number | null;
  /** Channels where ranks have different numbers in their states; null without a group. */
  readonly differing: readonly number[] | null;
}

const ACTION = "describe the state";

/**
 * Tells how healthy a batch norm is. One readback; over a group one small collective, which finds ranks that differ.
 *
 * @param state the state, which must track running statistics; it is not changed
 * @param effects `device`: where it lives; `group`: the ranks whose states should be equal
 * @returns a frozen record; channels are counted from 0
 * @throws (rejects with) TypeError or RangeError for a malformed state or none that is tracked, or moments of other channels
 *
 * @example
 * ```ts
 * import { describe, initBatchNorm, referenceDevice, stateFromHost, stateToHost } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const host = await stateToHost(device, initBatchNorm(device, 2));
 * const state = stateFromHost(device, { ...host, runningVar: Float32Array.of(1, 0) });
 * assert.deepEqual((await describe(state, { device })).collapsed, [1]);
 * ```
 */
export async function describe<A>(
  state: BatchNormState<A>,
  effects: { readonly device: Device<A>; readonly group?: ReduceGroup },
  options: DescribeOptions<A> = {},
): Promise<Health> {
  const { device, group } = checkDevice(effects, ACTION);
  if (group !== undefined) checkGroup(group, {}, ACTION);
  const own = local(device, state, options);
  const reading = own.then(({ vectors }) => wireOf(vectors));
  const wire = await reading.catch(() => null);
  const total = group === undefined || group.worldSize === 1
    ? null
    : await group.allReduce(wire ?? reading, combineMoments, {
      label: `describe C=${shown(state?.numFeatures)}`,
    });
  const { health, vectors } = await own;
  if (group === undefined) return Object.freeze({ ...health, differing: null });
  const { channels } = health;
  // Equal numbers have no sum of squared deviations, exactly; NaN is none that can be equal.
  const differs = (i: number) => total !== null && total[1 + vectors.length * channels + i] !== 0;
  const differing = indices(channels, (c) => vectors.some((_, v) => differs(v * channels + c)));
  return Object.freeze({ ...health, differing });
}

const indices = (length: number, test: (c: number) => boolean): readonly number[] =>
  Object.freeze(Array.from({ length }, (_, c) => c).filter(test));

/** One value per number: NaN and infinities become numbers that differ from all others, and equal themselves. */
function wireOf(vectors: readonly Float32Array[]): Float64Array {
  const values = vectors.flatMap((vector) => [...vector]).map((value) =>
    Number.isNaN(value) ? 2 ** 130 : Math.max(-(2 ** 129), Math.min(2 ** 129, value))
  );
  return Float64Array.from([1, ...values, ...values.map(() => 0)]);
}

/** Moments of any device as [count, mean C, m2 C]. */
function roundedOn<A>(device: Device<A>) {
  return (wire: Float64Array): Float64Array =>
    formatOn(device, momentsWire).rounded?.(wire) ?? wire;
}

async function local<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  { moments, collapsedBelow = state?.eps }: DescribeOptions<A>,
) {
  checkState(device, state, ACTION);
  const { numFeatures: channels, eps, numBatchesTracked: batches } = state;
  if (!(collapsedBelow >= 0)) {
    throw wrongValue(ACTION, "collapsedBelow must be >= 0", collapsedBelow);
  }
  if (moments !== undefined) checkMoments(device, moments, ACTION, "the moments", channels);
  const [host, wire] = await Promise.all([
    stateToHost(device, state),
    moments === undefined ? null : device.toWire(moments.data).then(roundedOn(device)),
  ]);
  const { weight, bias, runningMean, runningVar } = host;
  if (runningMean === null || runningVar === null) {
    throw refused(ACTION, "it must track running statistics", "runningMean is null");
  }
  const vectors = [weight, bias, runningMean, runningVar].filter((vector) => vector !== null);
  const batch = wire && wire[0] > 0
    ? {
      mean: wire.subarray(1, 1 + channels),
      variance: wire.subarray(1 + channels).map((m2) => m2 / wire[0]),
    }
    : null;
  const all = batch === null ? vectors : [...vectors, batch.mean, batch.variance];
  const finite = (c: number) => all.every((vector) => Number.isFinite(vector[c]));
  const largest = (drift: (c: number, of: NonNullable<typeof batch>) => number) =>
    batch === null
      ? null
      : indices(channels, finite).reduce((most, c) => Math.max(most, drift(c, batch)), 0);
  const health = {
    batches,
    channels,
    collapsed: indices(channels, (c) => runningVar[c] <= collapsedBelow),
    nonFinite: indices(channels, (c) => !finite(c)),
    leastVariance: runningVar.reduce((least, value) => Math.min(least, value)),
    meanDrift: largest((c, { mean }) => {
      const distance = Math.abs(mean[c] - runningMean[c]);
      return distance === 0 ? 0 : distance / Math.sqrt(runningVar[c] + eps);
    }),
    varianceDrift: largest((c, { variance }) =>
      Math.abs(Math.log2(ratio(variance[c] + eps, runningVar[c] + eps)))
    ),
  };
  return { health, vectors };
}

/** a / b, where equal numbers have a ratio of 1: two zeros too. */
function ratio(a: number, b: number): number {
  return a === b ? 1 : a / b;
}

const COLUMNS = [
  "batches",
  "channels",
  "collapsed",
  "nonFinite",
  "leastVariance",
  "meanDrift",
  "varianceDrift",
  "differing",
] as const;

/**
 * Prints healths as a table for a terminal: one row each, lists by their lengths, "-" for what was not asked.
 *
 * @param rows healths by their names, such as paths of layers or numbers of steps
 * @returns lines of text that end without a line break
 *
 * @example
 * ```ts
 * import { describe, healthTable, initBatchNorm, referenceDevice } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const table = healthTable({ stem: await describe(initBatchNorm(device, 2), { device }) });
 * console.assert(table.split("\n").length === 2);
 * ```
 */
export function healthTable(rows: Readonly<Record<string, Health>>): string {
  if (typeof rows !== "object" || rows === null) {
    throw wrongKind("print the healths", "they must be a record by names", rows);
  }
  return tableOf(Object.entries(rows));
}

/** The table of healths in an order, whose names may be the same. */
export function tableOf(rows: readonly (readonly [name: string, health: Health])[]): string {
  const cell = (value: Health[typeof COLUMNS[number]]): string => {
    if (value === null) return "-";
    if (typeof value === "object") return String(value.length);
    return Number.isInteger(value) ? String(value) : value.toPrecision(3);
  };
  const lines = [
    ["", ...COLUMNS],
    ...rows.map((
      [name, health],
    ) => [name, ...COLUMNS.map((key) => cell(health[key]))]),
  ];
  const widths = lines[0].map((_, i) => Math.max(...lines.map((line) => line[i].length)));
  return lines.map((line) =>
    line.map((text, i) => i === 0 ? text.padEnd(widths[i]) : text.padStart(widths[i])).join("  ")
  ).join("\n");
}
