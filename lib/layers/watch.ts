/** A batch norm watched over training: plain records, one after the other. */

import type { ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import type { BatchNormState } from "../state.ts";
import { checkInteger } from "../check_value.ts";
import { wrongKind } from "../words.ts";
import { describe, type DescribeOptions, type Health, tableOf } from "./health.ts";

/** What {@linkcode watch} has seen. Plain data: it travels, and is stored. */
export interface History {
  /** Healths, in order. Of more than `most` every second one was left out. */
  readonly records: readonly Health[];
  /** How many were seen. */
  readonly seen: number;
  /** Counters of batches where a number was not finite, the first 100 of them. */
  readonly nonFiniteAt: readonly number[];
  /** Counters of batches where ranks differed, the first 100 of them. */
  readonly differingAt: readonly number[];
  /** The channels that are collapsed now, each with the counter since when. */
  readonly collapsedSince: Readonly<Record<number, number>>;
}

/** What {@linkcode watch} is given beside the state. */
export interface WatchOptions<A> extends DescribeOptions<A> {
  /** Records that are kept at most, an integer >= 2; 1000 by default. */
  readonly most?: number;
}

const ACTION = "watch the state";
const FIRST = 100;
const NOTHING: History = /* @__PURE__ */ Object.freeze({
  records: [],
  seen: 0,
  nonFiniteAt: [],
  differingAt: [],
  collapsedSince: {},
});

/**
 * Adds the health of a state to a history: what collapsed and since when, which steps were not finite, how far batches drift
 * from the running statistics, which ranks differ.
 *
 * @param history what was seen before, null for nothing; it is not changed
 * @param state the state, which must track running statistics; it is not changed
 * @param effects `device`: where it lives; `group`: the ranks whose states should be equal
 * @param options `moments` of the latest batch, for drift; those of `describe`
 * @returns a frozen history, of which `healthSvg(history.records)` and `historyTable` are the picture and the table
 * @throws (rejects with) what `describe` rejects with
 *
 * @example
 * ```ts
 * import { batchNormForward, type History, initBatchNorm, referenceDevice, tensor, watch } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * let [state, history] = [initBatchNorm(device, 1, { momentum: 1 }), null as History | null];
 * for (const values of [[1, 3], [2, 2], [2, 2]]) {
 *   const x = tensor(device, values, [2, 1]);
 *   const forward = batchNormForward(state, x, { device });
 *   state = forward.state;
 *   history = await watch(history, state, { device }, { moments: forward.moments });
 * }
 * assert.deepEqual(history!.collapsedSince, { 0: 2 });
 * ```
 */
export async function watch<A>(
  history: History | null,
  state: BatchNormState<A>,
  effects: { readonly device: Device<A>; readonly group?: ReduceGroup },
  { most = 1000, ...options }: WatchOptions<A> = {},
): Promise<History> {
  const before = history ?? NOTHING;
  if (!Array.isArray(before.records)) {
    throw wrongKind(ACTION, "history must be one as of watch, or null", history);
  }
  checkInteger(most, "most", ACTION, 2);
  const health = await describe(state, effects, options);
  const { batches, collapsed, nonFinite, differing } = health;
  const noted = (counters: readonly number[], channels: readonly number[] | null) =>
    channels === null || channels.length === 0 || counters.length >= FIRST
      ? counters
      : Object.freeze([...counters, batches]);
  const records = [...before.records, health];
  // The first and the last stay.
  const kept = records.length <= most
    ? records
    : records.filter((_, i) => i % 2 === 0 || i === records.length - 1);
  return Object.freeze({
    records: Object.freeze(kept),
    seen: before.seen + 1,
    nonFiniteAt: noted(before.nonFiniteAt, nonFinite),
    differingAt: noted(before.differingAt, differing),
    collapsedSince: Object.freeze(
      Object.fromEntries(collapsed.map((c) => [c, before.collapsedSince[c] ?? batches])),
    ),
  });
}

/**
 * Prints the latest records of a history as a table for a terminal, and what it has noted below.
 *
 * @param history one as of {@linkcode watch}
 * @param latest rows at most; 10 by default
 * @returns lines of text that end without a line break
 *
 * @example
 * ```ts
 * import { historyTable, initBatchNorm, referenceDevice, watch } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const history = await watch(null, initBatchNorm(device, 2), { device });
 * console.assert(historyTable(history).startsWith("         batches"));
 * ```
 */
export function historyTable(
  { records, nonFiniteAt, differingAt, collapsedSince }: History,
  latest = 10,
): string {
  checkInteger(latest, "latest", "print the history", 1);
  const rows = records.slice(-latest).map((health) => [`batch ${health.batches}`, health] as const);
  const collapses = Object.entries(collapsedSince).map(([c, since]) => `${c} (since ${since})`);
  const notes = [
    ["not finite at batches", nonFiniteAt],
    ["ranks differ at batches", differingAt],
    ["collapsed channels", collapses],
  ] as const;
  return [
    tableOf(rows),
    ...notes.filter(([, list]) => list.length > 0).map(([what, list]) =>
      `${what}: ${list.join(", ")}`
    ),
  ].join("\n");
}
