/** Running statistics that begin anew. */

import { checkHandle } from "../check_effects.ts";
import { checkState, claimsState } from "../check_state.ts";
import type { Device } from "../device.ts";
import { compose, region } from "../ownership.ts";
import { checkMomentum, type Momentum } from "../schedule.ts";
import type { BatchNormState } from "../state.ts";
import { type AnyLayer, checkLayer, claimsLayer } from "./check_layer.ts";
import { withState } from "./layer.ts";
import { called, checkFound, checkRecord, nodesOf } from "../tree.ts";
import { checkChoice, type LayerChoice, replaceNodes } from "./replace.ts";

/** Options of {@linkcode resetRunningStats}. */
export interface ResetOptions extends LayerChoice {
  /**
   * Weight of a new batch from now on, null for the plain average over all of them, with which statistics are estimated
   * anew, or a rule; left out, it stays as it is.
   */
  readonly momentum?: Momentum;
}

/**
 * Begins the running statistics anew: mean 0, variance 1, counter 0, as `reset_running_stats` of PyTorch's modules.
 *
 * Takes a state, a layer, or a whole model, walked as in `convertSyncBatchNorm` with the states that stand in it without
 * a layer. A state that tracks nothing keeps to that; a lazy layer has nothing to reset.
 *
 * @param device where the statistics live; their new vectors are made in one submit
 * @param model a state, a layer, or a tree of plain records and arrays with such in it; it is not changed, and nothing of
 * it is freed
 * @returns a tree of the same type, frozen where it is new, that shares weights and biases with the given one
 * @throws what `convertSyncBatchNorm` throws, but for groups, of states too; TypeError or RangeError that names the path of
 * what is not live on the device; RangeError for a momentum out of range
 *
 * @example
 * ```ts
 * import { batchNormForward, initBatchNorm, referenceDevice, resetRunningStats, tensor } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const x = tensor(device, [1, 5], [2, 1]);
 * const { state } = batchNormForward(initBatchNorm(device, 1), x, { device });
 * const fresh = resetRunningStats(device, state);
 * console.assert(fresh.numBatchesTracked === 0 && fresh.weight === state.weight);
 * ```
 */
export function resetRunningStats<A, T>(
  device: Device<A>,
  model: T,
  options: ResetOptions = {},
): T {
  const action = "reset the running statistics";
  checkHandle(device, "free", action);
  const { only, allowNone, momentum } = checkChoice(options, action, ["momentum"]);
  const nodes = nodesOf(
    model,
    (value): value is Node<A> => claimsLayer<A>(value) || claimsState<A>(value),
    action,
  );
  if (!allowNone) {
    checkFound(nodes.size, model, action, "a state as of initBatchNorm, a layer as of initLayer");
  }
  for (const [node, [path]] of nodes) checkRecord(node, `${action} at ${called(path)}`);
  return region(device, (scope) =>
    compose(scope, (d) => {
      const reset = (state: BatchNormState<A>, here: string): BatchNormState<A> => {
        const { numFeatures, runningMean } = state;
        if (momentum !== undefined) checkMomentum(momentum, here);
        const next = { ...state, ...(momentum !== undefined && { momentum }) };
        checkState(d, next, here);
        if (runningMean === null) return momentum === undefined ? state : Object.freeze(next);
        return Object.freeze({
          ...next,
          runningMean: d.upload(new Float32Array(numFeatures)),
          runningVar: d.upload(new Float32Array(numFeatures).fill(1)),
          numBatchesTracked: 0,
        });
      };
      return replaceNodes<T, Node<A>>(model, nodes, only, action, (node, path) => {
        const here = `${action} at ${called(path)}`;
        if (!claimsLayer<A>(node)) return reset(node, here);
        checkLayer(node, here);
        if (node.state === null) return node;
        return withState<A, typeof node>(node, reset(node.state, here));
      });
    }));
}

type Node<A> = AnyLayer<A> | BatchNormState<A>;
