/** Running statistics of ghost batches: they follow the groups' means and variances, averaged by count, over all ranks. */

import type { Device, RunningStats } from "../device.ts";
import { checkCount, sum } from "../moments.ts";
import { shareOf } from "../schedule.ts";
import type { BatchNormState } from "../state.ts";
import { countOf, momentsWire, plainOf, type WireFormat, wireLike } from "../wire.ts";
import { wrongValue } from "../words.ts";
import { advance, follow } from "./running.ts";
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

/** Running statistics by the groups of one rank, one after the other, each with what makes its share of the factor. */
export function advanceBy<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  groups: readonly LocalMoments<A>[],
): BatchNormState<A> {
  const { runningMean, runningVar } = state;
  if (groups.length === 1) return advance(device, state, groups[0]);
  if (runningMean === null || runningVar === null) return state;
  const numBatchesTracked = Math.min(state.numBatchesTracked + 1, Number.MAX_SAFE_INTEGER);
  const factor = shareOf(state.momentum, numBatchesTracked);
  const counted = groups.filter(({ count }) => count! > 0);
  const count = counted.reduce((sum, { count }) => sum + count!, 0);
  if (count === 0) return state;
  let running: RunningStats<A> = { runningMean, runningVar };
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
    if (running.runningMean !== runningMean) {
      device.free(running.runningMean, running.runningVar);
    }
    running = next;
  }
  return Object.freeze({ ...state, ...running, numBatchesTracked });
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
