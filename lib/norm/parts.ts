/**
 * One batch in parts: where a batch does not fit one tensor, its parts are normalized with the statistics of them all, and
 * gradients are those of the whole. Nothing is read back without a group; over one there is one collective each way.
 */

import type { Activation } from "../activation.ts";
import { checkDevice, checkGiven, checkOptions } from "../check_effects.ts";
import { checkOneOf, SWITCH } from "../check_value.ts";
import type { BlockingGroup, CollectiveOptions, ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { checkCount } from "../moments.ts";
import { compose } from "../ownership.ts";
import type { BatchNormState } from "../state.ts";
import type { Tensor } from "../tensor.ts";
import { countOf } from "../wire.ts";
import { refused, shown, wrongKind, wrongPair } from "../words.ts";
import { checkCall } from "./check_call.ts";
import {
  type GroupSaved,
  type LocalSaved,
  normalized,
  type NormalizeOptions,
} from "./normalize.ts";
import {
  alone,
  checkEnough,
  type GroupMoments,
  groupMoments,
  type LocalMoments,
  mergeMoments,
  momentsOf,
} from "./statistics.ts";
import { advance } from "./running.ts";
import { type Crossing, overBlockingGroup, overGroup } from "./steps.ts";
import { travelling, type Weighed, weighed } from "./weights.ts";

/** Options of a forward pass over parts. */
export interface PartsOptions<A = unknown> {
  /** Added before the activation, one for each part: shape and dtype of the part, any format. */
  readonly residuals?: readonly Tensor<A>[];
  /** Weights of the examples as `batchNormForward` takes them, one tensor or array for each part. */
  readonly weights?: readonly (Tensor<A> | A)[];
  /** Lengths of padded sequences as `batchNormForward` takes them, those of each part. */
  readonly lengths?: readonly Int32Array[];
  /** Applied last, as `batchNormForward` does. */
  readonly activation?: Activation;
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
 * @param options residuals and weights of the parts, activation, whether running statistics are updated
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
  return compose(device, (d) => {
    const { moments, parts } = merged(d, state, inputs, options);
    return composed(d, state, parts, moments, options);
  });
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
  const { format, ...how } = travelling(options, label);
  return {
    action: FORWARD,
    ...{ ...how, format },
    channels: [Array.isArray(inputs) ? inputs[0]?.shape?.[1] : NaN],
    alone: (device) =>
      compose(device, (d) => {
        const state = stateOf(d);
        const { moments, parts } = merged(d, state, inputs, options);
        return composed(d, state, parts, alone(moments), options);
      }),
    launch: (scope, worldSize, read) => {
      checkGiven(options, FORWARD);
      const state = stateOf(scope);
      const [before, chosen] = [{ ...state }, { ...options }];
      const { own, parts } = compose(scope, (d) => {
        const { moments, parts } = reducedParts(d, before, inputs, chosen);
        return { own: read(d, moments.data), parts };
      });
      const conclude = ([total]: readonly Float64Array[]) => {
        checkCount(countOf(total), FORWARD);
        return compose(scope, (d) => {
          const moments = groupMoments(d, total, before.numFeatures, worldSize, format);
          const forward = composed<A, GroupSaved<A>>(d, before, parts, moments, chosen);
          return forward.state === before ? Object.freeze({ ...forward, state }) : forward;
        });
      };
      return { wires: [own], conclude };
    },
  };
}

/** A part that is checked. */
interface Part<A> {
  readonly input: Tensor<A>;
  readonly options: Weighed<A, NormalizeOptions<A>>;
}

/** The parts of this rank, checked, and the moments of them all, whatever their count. */
function reducedParts<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  inputs: readonly Tensor<A>[],
  options: PartsOptions<A>,
): { readonly moments: LocalMoments<A>; readonly parts: readonly Part<A>[] } {
  checkList(inputs, "inputs", FORWARD);
  checkOptions(options, [...LISTS, ...OTHERS], FORWARD);
  for (const name of LISTS) {
    const list: unknown = options[name];
    if (list === undefined) continue;
    checkList(list, name, FORWARD);
    if (list.length === inputs.length) continue;
    const wanted = `there must be ${name === "residuals" ? "a residual" : name} for each part`;
    throw wrongPair(FORWARD, wanted, list.length, inputs.length);
  }
  const { residuals, weights, lengths, activation } = options;
  const parts = inputs.map((input, i): Part<A> => {
    const here = `${FORWARD}, part ${i},`;
    const own = {
      ...{ activation, residual: residuals?.[i] },
      ...{ weights: weights?.[i], lengths: lengths?.[i] },
    };
    checkCall(device, state, input, own, Object.keys(own), here);
    return { input, options: weighed(device, input, own, here) };
  });
  checkOneOf(options.updateRunningStats, SWITCH, "updateRunningStats", FORWARD);
  const all = parts.map(({ input, options }) => momentsOf(device, input, options, FORWARD));
  const moments = all.reduce((a, b) => {
    const both = mergeMoments(a, b, { device });
    device.free(a.data, b.data);
    return both;
  });
  return { moments, parts };
}

const LISTS = ["residuals", "weights", "lengths"] as const;
const OTHERS = ["activation", "updateRunningStats", "signal"];

function merged<A>(...call: Parameters<typeof reducedParts<A>>) {
  const merged = reducedParts(...call);
  checkEnough(merged.moments, FORWARD);
  return merged;
}

function composed<A, S extends LocalSaved<A> | GroupSaved<A>>(
  device: Device<A>,
  state: BatchNormState<A>,
  parts: readonly Part<A>[],
  moments: LocalMoments<A> | GroupMoments<A>,
  { updateRunningStats }: PartsOptions<A>,
): PartsForward<A, S> {
  const made = parts.map(({ input, options }) =>
    normalized(device, state, input, moments, options)
  );
  return Object.freeze({
    outputs: Object.freeze(made.map(({ output }) => output)),
    state: updateRunningStats === false ? state : advance(device, state, moments),
    moments,
    saved: Object.freeze(made.map(({ saved }) => saved)),
  }) as unknown as PartsForward<A, S>;
}

/** Checks that a value is a list of parts. */
export function checkList(
  list: unknown,
  name: string,
  action: string,
): asserts list is readonly unknown[] {
  if (Array.isArray(list) && list.length > 0) return;
  const wanted = `${name} must be a list of at least one`;
  if (Array.isArray(list)) throw refused(action, wanted, "list is empty");
  throw wrongKind(action, wanted, list);
}
