/**
 * Parallel branches: batch norms that are ready together share one readback and one collective per direction.
 *
 * A sequential network has none: layer k + 1 needs layer k. Branches that read the same input, towers, and several models in
 * one step do.
 *
 * They fail together: one label names them all, and what is wrong with one is the failure of the call. Their wires lie
 * side by side, so that engines learn nothing new.
 */

import type { CollectiveOptions, ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import type { BatchNormState } from "../state.ts";
import type { Tensor } from "../tensor.ts";
import { wrongKind } from "../words.ts";
import { type Backward, type BackwardOptions, backwards, type KeepSums } from "./backward.ts";
import { type ForwardOptions, forwards, type GroupForward } from "./forward.ts";
import type { GroupSaved } from "./normalize.ts";
import { overGroup } from "./steps.ts";

/** What {@linkcode syncBatchNormForward} takes, for one of several branches. */
export interface ForwardBranch<A> {
  /** This rank's replica of the branch's state before this batch; it is not changed. */
  readonly state: BatchNormState<A>;
  /** This rank's part of the branch's batch, logical shape (N, C, ...spatial); N may be 0. */
  readonly input: Tensor<A>;
  /** Activation, residual, whether running statistics are updated. */
  readonly options?: ForwardOptions<A>;
}

/** What {@linkcode syncBatchNormBackward} takes, for one of several branches. */
export interface BackwardBranch<A> {
  /** What forward returned on this rank; borrowed, and valid for another call. */
  readonly saved: GroupSaved<A>;
  /** Gradient of forward's output on this rank, in its shape and dtype, any format. */
  readonly gradOutput: Tensor<A>;
  /** Whether gradOutput is given up, which must then be nothing that any of the branches needs; whether sums are kept. */
  readonly options?: BackwardOptions & KeepSums;
}

/**
 * Does what `syncBatchNormForward` does for each of several branches, in one readback and one collective.
 *
 * Each branch gets the bits that a call of its own would give it. Every rank must come with the same branches in the same
 * order; channels and extents may differ among branches. No branches are a collective too.
 *
 * @param branches states, batches and options
 * @param effects `device`: where everything lives; `group`: the ranks to share statistics with
 * @returns what `syncBatchNormForward` returns of each branch, in their order, all frozen
 * @throws (rejects with) what `syncBatchNormForward` does; what is wrong with a branch names it and fails all of them, and no
 * state changes
 *
 * @example Two branches, two replicas
 * ```ts
 * import { initBatchNorm, referenceDevice, runRanks, tensor } from "@syncbn/syncbn";
 * import { syncBatchNormForwardAll } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 1);
 * await runRanks(2, async (group) => {
 *   const x = group.rank === 0 ? 1 : 3;
 *   const branches = [x, -x].map((value) => ({ state, input: tensor(device, [value], [1, 1]) }));
 *   const forwards = await syncBatchNormForwardAll(branches, { device, group });
 *   console.assert(forwards.every(({ moments }) => moments.count === 2));
 * });
 * ```
 */
export async function syncBatchNormForwardAll<A>(
  branches: readonly ForwardBranch<A>[],
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: Pick<CollectiveOptions, "signal"> = {},
): Promise<readonly GroupForward<A>[]> {
  const calls = listOf(branches).map((branch, i) => ({
    stateOf: () => {
      checkBranches(branches, "normalize the batches", ["state", "input"]);
      return branch?.state as BatchNormState<A>;
    },
    input: branch?.input as Tensor<A>,
    options: branch?.options ?? {},
    action: `normalize the batch of branch ${i}`,
  }));
  const label = `syncBatchNormForwardAll ${namesOf(calls.map(({ input }) => input))}`;
  return Object.freeze(await overGroup(effects, options, forwards(calls, label)));
}

/**
 * Does what `syncBatchNormBackward` does for each of several branches, in one readback and one collective.
 *
 * @param branches what forward returned, gradients of its outputs, and options; those of `syncBatchNormForward` will do too
 * @param effects `device`: where everything lives; `group`: the ranks of forward
 * @returns gradients of each branch, in their order, all frozen
 * @throws (rejects with) what `syncBatchNormBackward` does; what is wrong with a branch names it and fails all of them, and no
 * gradOutput is given up
 *
 * @example
 * ```ts
 * import { initBatchNorm, referenceDevice, runRanks, tensor } from "@syncbn/syncbn";
 * import { syncBatchNormBackwardAll, syncBatchNormForwardAll } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 2);
 * await runRanks(2, async (group) => {
 *   const input = tensor(device, [group.rank, 1, 2, 3], [2, 2]);
 *   const forwards = await syncBatchNormForwardAll([{ state, input }], { device, group });
 *   const branches = forwards.map(({ saved, output }) => ({ saved, gradOutput: output }));
 *   console.assert((await syncBatchNormBackwardAll(branches, { device, group })).length === 1);
 * });
 * ```
 */
export async function syncBatchNormBackwardAll<A>(
  branches: readonly BackwardBranch<A>[],
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: Pick<CollectiveOptions, "signal"> = {},
): Promise<readonly Backward<A>[]> {
  const calls = listOf(branches).map((branch, i) => ({
    check: () =>
      checkBranches(branches, "compute the gradients of the branches", ["saved", "gradOutput"]),
    saved: branch?.saved as GroupSaved<A>,
    gradOutput: branch?.gradOutput as Tensor<A>,
    options: branch?.options ?? {},
    action: `compute the gradients of branch ${i}`,
  }));
  const label = `syncBatchNormBackwardAll ${namesOf(calls.map(({ saved }) => saved?.input))}`;
  return Object.freeze(await overGroup(effects, options, backwards(calls, label)));
}

/** The branches; one for what are none, which fails in its turn, so that all ranks hear of it. */
function listOf<B>(branches: readonly B[]): readonly (B | undefined)[] {
  return Array.isArray(branches) ? branches : [undefined];
}

function checkBranches(branches: unknown, action: string, fields: readonly string[]): void {
  if (!Array.isArray(branches)) {
    throw wrongKind(action, `branches must be an array of { ${fields.join(", ")} }`, branches);
  }
  for (const branch of branches) {
    const other = Object.keys(Object(branch)).find((name) => WITHIN.includes(name));
    if (other === undefined) continue;
    throw wrongKind(action, "a branch's options must stand in its field options", other, "one");
  }
}

/** What is skipped in silence where it stands beside options, and not in it. */
const WITHIN = [
  ...["activation", "residual", "weights", "lengths", "updateRunningStats", "donate", "keepSums"],
];

/** What the ranks compare: channels and dtype of every branch. */
function namesOf(inputs: readonly (Tensor<unknown> | undefined)[]): string {
  return `[${inputs.map((input) => `C=${input?.shape?.[1]} ${input?.dtype}`).join(", ")}]`;
}
