/**
 * How a state advances by one batch.
 *
 * @module
 */

import type { Device } from "./device.ts";
import type { BatchNormState } from "./state.ts";

/**
 * Folds the moments of a batch into the running statistics of a state.
 *
 * runningMean = (1 - f) * runningMean + f * mean and runningVar = (1 - f) * runningVar + f * m2 / (count - 1), where f
 * is the momentum, or 1/t for the t-th batch when momentum is null (PyTorch `_BatchNorm.forward`).
 *
 * @param device the device that both live on
 * @param state a checked state
 * @param moments moments of the whole batch, over all ranks
 * @param count values per channel in them: >= 2, or 0 where every rank was empty
 * @returns a new state that shares everything else with the old one; the old one itself where it tracks nothing or
 * the batch was empty
 */
export function advance<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  moments: A,
  count: number,
): BatchNormState<A> {
  const { runningMean, runningVar, momentum } = state;
  if (runningMean === null || runningVar === null || count === 0) return state;
  // A counter at its end stays there: one more would be no integer that the next call takes.
  const numBatchesTracked = Math.min(state.numBatchesTracked + 1, Number.MAX_SAFE_INTEGER);
  const factor = momentum ?? 1 / numBatchesTracked;
  const running = device.updateRunningStats({ runningMean, runningVar }, moments, factor);
  return Object.freeze({ ...state, ...running, numBatchesTracked });
}
