/** Running statistics of ghost batches: they follow the groups' means and variances, averaged by count, over all ranks. */

import type { Device, RunningStats } from "../device.ts";
import { sum } from "../moments.ts";
import { shareOf } from "../schedule.ts";
import type { BatchNormState } from "../state.ts";
import { momentsWire, type WireFormat, wireLike } from "../wire.ts";
import { advance, follow } from "./running.ts";
import type { LocalMoments } from "./statistics.ts";
import type { Wire } from "./steps.ts";

/** [count, sums of count * mean C, sums of count * variance C] of groups, which are added. */
export const averages: WireFormat = /* @__PURE__ */ wireLike(momentsWire, { combine: sum });

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
  const count = groups.reduce((sum, { count }) => sum + count!, 0);
  let running: RunningStats<A> = { runningMean, runningVar };
  let seen = 0;
  for (const moments of groups) {
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

/** The wire of this rank's groups. */
export function sumsOf<A>(
  { runningVariance }: BatchNormState<A>,
  groups: readonly Wire[],
  channels: number,
): Wire {
  const biased = runningVariance === "biased";
  const added = (wires: readonly Float64Array[]) => {
    const all = new Float64Array(averages.length(channels));
    for (const wire of wires) {
      const [count] = wire;
      if (count === 0) continue;
      all[0] += count;
      for (let c = 1; c <= channels; c++) {
        all[c] += count * wire[c];
        all[channels + c] += wire[channels + c] * count / (biased ? count : count - 1);
      }
    }
    return all;
  };
  const now = groups.filter((wire) => wire instanceof Float64Array);
  return now.length === groups.length ? added(now) : Promise.all(groups).then(added);
}

/** The state after a batch of whose groups these are the sums. */
export function after<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  total: Float64Array,
): BatchNormState<A> {
  const [count] = total;
  const divisor = state.runningVariance === "biased" ? count : count - 1;
  const channels = state.numFeatures;
  // Moments whose variance is the groups' mean one.
  const moments = total.map((sum, i) =>
    i === 0 ? count : i <= channels ? sum / count : sum / count * divisor
  );
  const data = device.fromWire(momentsWire, moments);
  const next = advance(device, state, { data, count, shape: [1, channels] });
  device.free(data);
  return next;
}
