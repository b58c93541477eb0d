/** Running statistics of ghost batches: they follow the groups' means and variances, averaged by count, over all ranks. */

import type { Device, RunningStats } from "../device.ts";
import { checkCount, sum } from "../moments.ts";
import { shareOf } from "../schedule.ts";
import type { BatchNormState } from "../state.ts";
import { extents, type Tensor, tensor, tensorLike } from "../tensor.ts";
import { countOf, momentsWire, plainOf, type WireFormat, wireLike } from "../wire.ts";
import { wrongValue } from "../words.ts";
import { advance, follow } from "./running.ts";
import { joined } from "./samples.ts";
import type { LocalMoments } from "./statistics.ts";

/** [count, sums of count * mean C, sums of count * variance C] of groups, which are added; a count may be one of weights. */
export const averages: WireFormat = /* @__PURE__ */ wireLike(momentsWire, {
  combine: sum,
  check: ([count], [own], action) => {
    if (Number.isFinite(count) && count >= own) return;
    const wanted = "the count that allReduce resolves to must be this rank's own or more";
    throw wrongValue(action, wanted, count);
  },
});

/** What the variance of so many values, or of weights of this sum, is m2 divided by. */
function divisorOf(count: number, { runningVariance }: BatchNormState<unknown>): number {
  return runningVariance === "biased" || count <= 1 ? count : count - 1;
}

/** Groups of one rank, with the weights that they count by. */
interface Groups<A> {
  readonly moments: readonly LocalMoments<A>[];
  readonly ghost: number;
  readonly weights?: Tensor<A>;
}

/** The state after the groups of one rank, by what is known of their counts. */
export function advanceBy<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  groups: Groups<A>,
): BatchNormState<A> {
  const { runningMean, runningVar } = state;
  const { moments, weights } = groups;
  if (moments.length === 1) return advance(device, state, moments[0]);
  if (runningMean === null || runningVar === null) return state;
  const numBatchesTracked = Math.min(state.numBatchesTracked + 1, Number.MAX_SAFE_INTEGER);
  const factor = shareOf(state.momentum, numBatchesTracked);
  const running = { runningMean, runningVar };
  const next = weights && moments.some(({ count }) => count === null)
    ? byShares(device, state, running, { ...groups, weights }, factor)
    : inTurn(device, state, running, moments, factor);
  return next === running ? state : Object.freeze({ ...state, ...next, numBatchesTracked });
}

/** Running statistics by the groups, one after the other, each with what makes its share of the factor. */
function inTurn<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  before: RunningStats<A>,
  groups: readonly LocalMoments<A>[],
  factor: number,
): RunningStats<A> {
  const counted = groups.filter(({ count }) => count! > 0);
  const count = counted.reduce((sum, { count }) => sum + count!, 0);
  let running = before;
  let seen = 0;
  for (const moments of counted) {
    seen += moments.count!;
    // (1 - f1)(1 - f2)... is 1 - factor: what later groups take is taken from this one's share too.
    const left = 1 - factor * (count - seen) / count;
    const next = follow(
      device,
      state,
      running,
      moments,
      Math.min(1, factor * moments.count! / count / left),
    );
    if (running !== before) device.free(running.runningMean, running.runningVar);
    running = next;
  }
  return running;
}

/**
 * The same where the device alone knows the sums of weights. A mean by weights is a pass: that of the groups' means, and of their
 * variances, by the groups' shares, which are the mean of what is 1 in a group and 0 elsewhere. They stay 0, and the running
 * statistics what they were, where nothing counts or a weight is none.
 */
function byShares<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  before: RunningStats<A>,
  { moments, ghost, weights }: Required<Groups<A>>,
  factor: number,
): RunningStats<A> {
  const { batch, inner } = extents(weights.shape);
  const marks = new Float32Array(batch * moments.length * inner);
  for (let n = 0; n < batch; n++) {
    const at = n * moments.length + Math.floor(n / ghost);
    marks.fill(1, at * inner, (at + 1) * inner);
  }
  const shape = [batch, moments.length, ...weights.shape.slice(2)];
  const groups = tensor(device, marks, shape);
  const none = device.upload(new Float32Array(moments.length));
  const meanOf = (input: Tensor<A>, weights: Tensor<A>, old: A, factor: number) => {
    const mean = device.moments({ input, weights });
    const running = { runningMean: old, runningVar: old };
    const next = device.updateRunningStats({ running, moments: mean, factor });
    device.free(mean, next.runningVar);
    return next.runningMean;
  };
  const shares = tensorLike(
    { ...groups, shape: [moments.length, 1] },
    meanOf(groups, weights, none, 1),
  );
  const each = moments.map((group) => follow(device, state, before, group, 1));
  const channels = state.numFeatures;
  const row = { ...groups, shape: [1, channels] };
  const followed = (name: keyof RunningStats<A>) => {
    const rows = each.map((observed) => tensorLike(row, observed[name]));
    const all = joined(device, rows, { ...row, shape: [moments.length, channels] });
    const next = meanOf(all, shares, before[name], factor);
    device.free(all.data, ...rows.map(({ data }) => data));
    return next;
  };
  const next = { runningMean: followed("runningMean"), runningVar: followed("runningVar") };
  device.free(groups.data, none, shares.data);
  return next;
}

/** The wire of this rank's groups, whose moments were read; what is wrong with weights is found here. */
export function sumsOf<A>(
  state: BatchNormState<A>,
  groups: readonly Float64Array[],
  format: WireFormat,
  action: string,
): Float64Array {
  const channels = state.numFeatures;
  const all = new Float64Array(averages.length(channels));
  for (const wire of groups) {
    format.checkOwn?.(wire, action);
    checkCount(countOf(wire), action);
    const [count, ...rest] = plainOf(format, wire);
    if (count === 0) continue;
    const divisor = divisorOf(count, state);
    all[0] += count;
    for (let c = 0; c < channels; c++) {
      all[1 + c] += count * rest[c];
      all[1 + channels + c] += rest[channels + c] * count / divisor;
    }
  }
  return all;
}

/** The state after a batch of whose groups these are the sums. */
export function after<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  total: Float64Array,
  format: WireFormat,
): BatchNormState<A> {
  const [count] = total;
  const channels = state.numFeatures;
  // Moments whose variance is the groups' mean one.
  const moments = total.map((sum, i) =>
    i === 0 ? count : i <= channels ? sum / count : sum / count * divisorOf(count, state)
  );
  const positives = format === momentsWire ? [] : [2];
  const data = device.fromWire(format, Float64Array.of(...positives, ...moments));
  const next = advance(device, state, { data, count, shape: [1, channels] });
  device.free(data);
  return next;
}
