/**
 * One batch in parts: where a batch does not fit one tensor, its parts are normalized with the statistics of them all, and
 * gradients are those of the whole. Nothing is read back without a group; over one there is one collective each way.
 */

import { checkDevice, checkOptions } from "../check_effects.ts";
import { checkOneOf, SWITCH } from "../check_value.ts";
import type { BlockingGroup, CollectiveOptions, ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { checkCount } from "../moments.ts";
import { batch } from "../ownership.ts";
import type { BatchNormState } from "../state.ts";
import type { Tensor } from "../tensor.ts";
import { countOf, momentsWire } from "../wire.ts";
import { refused, shown, wrongKind, wrongPair } from "../words.ts";
import { checkCall } from "./check_call.ts";
import { type GroupSaved, type LocalSaved, normalized } from "./normalize.ts";
import {
  alone,
  type GroupMoments,
  groupMoments,
  type LocalMoments,
  mergeMoments,
  momentsOf,
} from "./statistics.ts";
import { advance } from "./running.ts";
import { type Crossing, overBlockingGroup, overGroup } from "./steps.ts";

/** Options of a forward pass over parts. */
export interface PartsOptions<A = unknown> {
  /** Added before the activation, one for each part: shape and dtype of the part, any format. */
  readonly residuals?: readonly Tensor<A>[];
  /** Applied last: y = max(y, 0). */
  readonly activation?: "relu";
  /** Whether the running statistics follow the whole batch; true by default. */
  readonly updateRunningStats?: boolean;
}

/** Options of a forward pass over parts on several ranks. */
export interface SyncPartsOptions<A = unknown>
  extends PartsOptions<A>, Pick<CollectiveOptions, "signal"> {}

/** A batch that was normalized in parts. */
export interface PartsForward<A, S extends LocalSaved<A> | GroupSaved<A>> {
  /** The normalized parts, in the shapes, dtypes and formats of the inputs. */
  readonly outputs: readonly Tensor<A>[];
  /** The state after this batch, which counts as one; the given one where nothing changed. */
  readonly state: BatchNormState<A>;
  /** Statistics of the whole batch. They belong to `saved` too: free them once. */
  readonly moments: S["moments"];
  /** What backward needs, one record for each part. */
  readonly saved: readonly S[];
}

const FORWARD = "normalize the batch in parts";

/**
 * Normalizes several tensors as the one batch that they make up.
 *
 * Statistics are merged on the device (Chan et al.), then each part is normalized with them: outputs and state are those
 * of `batchNormForward` of the concatenated parts, as exact as merging is. Synchronous: nothing is read back.
 *
 * @param state the state before this batch; it is not changed
 * @param inputs the parts, at least one, each of logical shape (N, C, ...spatial); any may be empty or of other extents
 * @param effects `device`: where everything lives
 * @returns outputs, new state, moments, and what `batchNormBackwardParts` needs, all frozen
 * @throws what `batchNormForward` throws, for one value per channel in all parts together; TypeError for no list of tensors
 *
 * @example
 * ```ts
 * import { batchNormForwardParts, initBatchNorm, referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 1, { eps: 0 });
 * const parts = [1, 3].map((value) => tensor(device, [value], [1, 1]));
 * const { outputs } = batchNormForwardParts(state, parts, { device });
 * assert.deepEqual(await toArray(device, outputs[1]), Float32Array.of(1));
 * ```
 */
export function batchNormForwardParts<A>(
  state: BatchNormState<A>,
  inputs: readonly Tensor<A>[],
  effects: { readonly device: Device<A> },
  options: PartsOptions<A> = {},
): PartsForward<A, LocalSaved<A>> {
  const { device } = checkDevice(effects, FORWARD);
  return batch(
    device,
    (d) => composed(d, state, inputs, merged(d, state, inputs, options), options),
  );
}

/**
 * {@linkcode batchNormForwardParts} with the statistics of all parts of all ranks: one collective.
 *
 * @param effects `device` and `group`; ranks may have different numbers of parts
 * @returns what `syncBatchNormBackwardParts` needs, among the rest
 * @throws (rejects with) what `syncBatchNormForward` rejects with
 */
export async function syncBatchNormForwardParts<A>(
  state: BatchNormState<A>,
  inputs: readonly Tensor<A>[],
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: SyncPartsOptions<A> = {},
): Promise<PartsForward<A, GroupSaved<A>>> {
  const call = { stateOf: () => state, inputs, options };
  return await overGroup(effects, options, partsForward(call, labelOf(state)));
}

/** {@linkcode syncBatchNormForwardParts} on a thread that may be held up. */
export function syncBatchNormForwardPartsBlocking<A>(
  state: BatchNormState<A>,
  inputs: readonly Tensor<A>[],
  effects: { readonly device: Device<A>; readonly group: BlockingGroup },
  options: PartsOptions<A> = {},
): PartsForward<A, GroupSaved<A>> {
  const call = { stateOf: () => state, inputs, options };
  return overBlockingGroup(effects, partsForward(call, labelOf(state)));
}

const labelOf = <A>(state: BatchNormState<A>) =>
  `syncBatchNormForwardParts C=${shown(state?.numFeatures)}`;

/** A forward pass over parts. */
export interface PartsCall<A> {
  /** Finds or makes the state on a handle, in the turn of the call. */
  readonly stateOf: (device: Device<A>) => BatchNormState<A>;
  readonly inputs: readonly Tensor<A>[];
  readonly options: PartsOptions<A>;
}

/** {@linkcode syncBatchNormForwardParts} as a crossing; the label is what the ranks compare. */
export function partsForward<A>(
  { stateOf, inputs, options }: PartsCall<A>,
  label: string,
): Crossing<A, PartsForward<A, GroupSaved<A>>> {
  return {
    action: FORWARD,
    label,
    format: momentsWire,
    channels: [Array.isArray(inputs) ? inputs[0]?.shape?.[1] : NaN],
    alone: (device) =>
      batch(device, (d) => {
        const state = stateOf(d);
        return composed(d, state, inputs, alone(merged(d, state, inputs, options)), options);
      }),
    launch: (scope, worldSize, read) => {
      const state = stateOf(scope);
      const before = { ...state };
      const parts = Array.isArray(inputs) ? [...inputs] : inputs;
      const { residuals } = options;
      const chosen = {
        ...options,
        ...(Array.isArray(residuals) && { residuals: [...residuals] }),
      };
      const { own } = batch(scope, (d) => {
        const moments = momentsOfAll(d, before, parts, chosen);
        return { own: read(d, moments.data) };
      });
      const conclude = ([total]: readonly Float64Array[]) => {
        checkCount(countOf(total), FORWARD);
        return batch(scope, (d) => {
          const moments = groupMoments(d, total, before.numFeatures, worldSize);
          const forward = composed<A, GroupSaved<A>>(d, before, parts, moments, chosen);
          return forward.state === before ? Object.freeze({ ...forward, state }) : forward;
        });
      };
      return { wires: [own], conclude };
    },
  };
}

/** Moments of all parts of this rank, whatever their count. */
function momentsOfAll<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  inputs: readonly Tensor<A>[],
  options: PartsOptions<A>,
): LocalMoments<A> {
  checkList(inputs, "inputs", FORWARD);
  checkOptions(options, ["residuals", "activation", "updateRunningStats", "signal"], FORWARD);
  const { residuals, activation } = options;
  if (residuals !== undefined) {
    checkList(residuals, "residuals", FORWARD);
    if (residuals.length !== inputs.length) {
      const wanted = "there must be a residual for each part";
      throw wrongPair(FORWARD, wanted, residuals.length, inputs.length);
    }
  }
  inputs.forEach((input, i) => {
    const own = { activation, ...(residuals && { residual: residuals[i] }) };
    const here = `${FORWARD}, part ${i},`;
    checkCall(device, state, input, own, ["activation", "residual"], here);
  });
  checkOneOf(options.updateRunningStats, SWITCH, "updateRunningStats", FORWARD);
  return inputs.map((input) => momentsOf(device, input)).reduce((a, b) => {
    const both = mergeMoments(a, b, { device });
    device.free(a.data, b.data);
    return both;
  });
}

function merged<A>(...call: Parameters<typeof momentsOfAll<A>>): LocalMoments<A> {
  const moments = momentsOfAll(...call);
  if (moments.count !== null) checkCount(moments.count, FORWARD);
  return moments;
}

function composed<A, S extends LocalSaved<A> | GroupSaved<A>>(
  device: Device<A>,
  state: BatchNormState<A>,
  inputs: readonly Tensor<A>[],
  moments: LocalMoments<A> | GroupMoments<A>,
  options: PartsOptions<A>,
): PartsForward<A, S> {
  const { activation, residuals } = options;
  const parts = inputs.map((input, i) =>
    normalized(device, state, input, moments, { activation, residual: residuals?.[i] })
  );
  return Object.freeze({
    outputs: Object.freeze(parts.map(({ output }) => output)),
    state: options.updateRunningStats === false ? state : advance(device, state, moments),
    moments,
    saved: Object.freeze(parts.map(({ saved }) => saved)),
  }) as unknown as PartsForward<A, S>;
}

/** Checks that a value is a list of parts. */
export function checkList(list: unknown, name: string, action: string): void {
  if (Array.isArray(list) && list.length > 0) return;
  const wanted = `${name} must be a list of at least one`;
  if (Array.isArray(list)) throw refused(action, wanted, "list is empty");
  throw wrongKind(action, wanted, list);
}
