/** Running statistics: how those of a state follow the moments of a batch. */

import { checkDevice } from "../check_effects.ts";
import { checkState } from "../check_state.ts";
import type { Device, RunningStats } from "../device.ts";
import { shareOf } from "../schedule.ts";
import type { BatchNormState } from "../state.ts";
import { wrongKind } from "../words.ts";
import { checkEnough, checkMoments, type Moments } from "./statistics.ts";

/**
 * Folds the moments of a batch into the running statistics of a state.
 *
 * runningMean = (1 - f) * runningMean + f * mean and runningVar = (1 - f) * runningVar + f * m2 / (count - 1), where f
 * is the momentum, 1/t for the t-th batch when momentum is null (PyTorch `_BatchNorm.forward`), or what its rule gives
 * for t. Where the state says `runningVariance: "biased"` the observed variance is m2 / count (Keras, Flax).
 *
 * @param state the state before this batch; it is not changed
 * @param moments moments of the whole batch, over all ranks
 * @param effects `device`: where both live
 * @returns a new state that shares everything else with the old one; the old one itself where it tracks nothing or the
 * batch was empty
 * @throws TypeError where channels differ or arrays are not live, RangeError for moments of one value, which has no variance
 *
 * @example
 * ```ts
 * import { batchMoments, initBatchNorm, referenceDevice, tensor, updateRunningStats } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 1, { momentum: null });
 * const moments = batchMoments(tensor(device, [1, 3], [2, 1]), { device });
 * console.assert(updateRunningStats(state, moments, { device }).numBatchesTracked === 1);
 * ```
 */
export function updateRunningStats<A>(
  state: BatchNormState<A>,
  moments: Moments<A>,
  effects: { readonly device: Device<A> },
): BatchNormState<A> {
  const action = "update the running statistics";
  const { device } = checkDevice(effects, action);
  checkState(device, state, action);
  checkMoments(device, moments, action, "the moments", state.numFeatures);
  checkEnough(moments, action);
  return advance(device, state, moments);
}

/** {@linkcode updateRunningStats} of what is checked. */
export function advance<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  { data, count }: Moments<A>,
): BatchNormState<A> {
  const { runningMean, runningVar, momentum } = state;
  if (runningMean === null || runningVar === null || count === 0) return state;
  // A counter at its end stays there: one more would be no integer that the next call takes.
  const numBatchesTracked = Math.min(state.numBatchesTracked + 1, Number.MAX_SAFE_INTEGER);
  const factor = shareOf(momentum, numBatchesTracked);
  const next = follow(device, state, { runningMean, runningVar }, { data, count }, factor);
  return Object.freeze({
    ...state,
    runningMean: next.runningMean,
    runningVar: next.runningVar,
    numBatchesTracked,
  });
}

/** Running statistics that follow moments by a factor; which variance they follow the state says. */
export function follow<A>(
  device: Device<A>,
  { runningVariance }: Pick<BatchNormState<A>, "runningVariance">,
  running: RunningStats<A>,
  { data, count }: Pick<Moments<A>, "data" | "count">,
  factor: number,
): RunningStats<A> {
  const next = device.updateRunningStats({ running, moments: data, factor });
  if (runningVariance !== "biased") return next;
  return { ...next, runningVar: biased(device, { ...next, factor }, { data, count }) };
}

/** The running variance that follows m2 / count, of the one that follows m2 / (count - 1); the latter is freed. */
function biased<A>(
  device: Device<A>,
  { factor, ...next }: RunningStats<A> & { readonly factor: number },
  { data, count }: Pick<Moments<A>, "data" | "count">,
): A {
  if (count === null) {
    const wanted = "a biased running variance needs counts: use lengths, or a group";
    throw wrongKind("update the running statistics", wanted, null, "count");
  }
  if (count <= 1) return next.runningVar; // Weights as small as these have m2 / count already.
  // Of the batch alone: f * m2 / (count - 1) is f * m2 / count and f / count of it.
  const batchs = device.updateRunningStats({ running: next, moments: data, factor: 1 });
  const scale = -factor / count;
  const variance = device.addScaled({ x: next.runningVar, y: batchs.runningVar, scale });
  device.free(batchs.runningMean, batchs.runningVar, next.runningVar);
  return variance;
}
