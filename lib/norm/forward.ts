/**
 * Training forward: normalize a batch with its own statistics, or with those of the whole process group.
 *
 * All that one direction launches is one batch: one submit on a GPU. The label of a collective names function, channels
 * and dtype. Ranks that differ in eps, momentum or `updateRunningStats` are not caught by it: their statistics still
 * agree, their states do not.
 */

import { checkDevice } from "../check_effects.ts";
import { checkOneOf, SWITCH } from "../check_value.ts";
import type { BlockingGroup, CollectiveOptions, ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { checkCount } from "../moments.ts";
import { compose } from "../ownership.ts";
import type { BatchNormState } from "../state.ts";
import { fixed, type Tensor } from "../tensor.ts";
import { countOf, momentsWire, weightedMomentsWire } from "../wire.ts";
import { shown } from "../words.ts";
import { checkCall, checkKept } from "./check_call.ts";
import {
  type GroupSaved,
  type LocalSaved,
  normalized,
  type NormalizeOptions,
  type Saved,
} from "./normalize.ts";
import {
  alone,
  checkEnough,
  type GroupMoments,
  groupMoments,
  type LocalMoments,
  type Moments,
  momentsOf,
  reduced,
} from "./statistics.ts";
import { advance } from "./running.ts";
import { type Crossing, overBlockingGroup, overGroup } from "./steps.ts";
import { isWeighted, type Weighed, weighed, type Weights } from "./weights.ts";

/** Options of a training forward pass. */
export interface ForwardOptions<A> extends NormalizeOptions<A> {
  /** Whether the running statistics follow this batch; true by default. */
  readonly updateRunningStats?: boolean;
}

/** Options of a synchronised forward pass. */
export interface SyncForwardOptions<A>
  extends ForwardOptions<A>, Pick<CollectiveOptions, "signal"> {}

/** What a forward returns, with moments and saved values of its kind. */
export interface Forward<A, M extends Moments<A>, S extends Saved<A>> {
  /** The normalized batch of this rank, in the input's shape, dtype and format. */
  readonly output: Tensor<A>;
  /**
   * The state after this batch; the given one where nothing changed. Over a group it has the same bits in its running
   * statistics on every rank that gave the same state and options.
   */
  readonly state: BatchNormState<A>;
  /** The statistics that the batch was normalized with. They belong to `saved` too: free them once. */
  readonly moments: M;
  /** What backward needs. */
  readonly saved: S;
}

/** What a local forward returns. */
export interface LocalForward<A> extends Forward<A, LocalMoments<A>, LocalSaved<A>> {}

/** What a synchronised forward returns. */
export interface GroupForward<A> extends Forward<A, GroupMoments<A>, GroupSaved<A>> {}

const ACTION = "normalize the batch";

/**
 * Normalizes a batch with its own statistics (ordinary batch normalization, Ioffe and Szegedy 2015, algorithm 1).
 *
 * Per channel, over all samples and positions: y = (x - mean) / sqrt(variance + eps) * weight + bias, then the residual
 * and the activation. Synchronous: nothing is read back, all launches go out together.
 *
 * Where examples have weights w of the sum W, mean = (sum of w*x)/W and variance = (sum of w*(x - mean)^2)/W, of which the
 * running variance takes W/(W - 1), or it as it is where W <= 1. Without a positive one the state stays and y is the bias. A
 * device that does not read back at once cannot tell the host: see docs/numerics.md.
 *
 * @param state the state before this batch; it is not changed
 * @param input the batch, logical shape (N, C, ...spatial), float32 or float16
 * @param effects `device`: where everything lives
 * @param options activation and residual, weights of the examples, whether running statistics are updated
 * @returns output, new state, moments of the batch, and what backward needs, all frozen
 * @throws TypeError where shapes, dtypes or devices do not fit, RangeError for one value per channel (or one positive weight),
 * whose variance is nothing to normalize with, and for weights that are negative or not finite; nothing has changed then
 *
 * @example
 * ```ts
 * import { batchNormForward, initBatchNorm, referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 1, { eps: 0 });
 * const { output } = batchNormForward(state, tensor(device, [1, 3], [2, 1]), { device });
 * assert.deepEqual(await toArray(device, output), Float32Array.of(-1, 1));
 * ```
 */
export function batchNormForward<A>(
  state: BatchNormState<A>,
  input: Tensor<A>,
  effects: { readonly device: Device<A> },
  options: ForwardOptions<A> = {},
): LocalForward<A> {
  const { device } = checkDevice(effects, ACTION);
  const chosen = checkForward(device, state, input, options, ACTION);
  return compose(
    device,
    (d) => composed(d, state, input, enough(d, input, chosen, ACTION), chosen),
  );
}

/** Moments of a batch that is checked, which have a variance as far as is known. */
function enough<A>(
  device: Device<A>,
  input: Tensor<A>,
  weights: Weights<A>,
  action: string,
): LocalMoments<A> {
  const moments = momentsOf(device, input, weights, action);
  checkEnough(moments, action);
  return moments;
}

/**
 * Normalizes this rank's part of a batch with the statistics of the whole batch, over all ranks of the group.
 *
 * The law: for any partition of a batch over the ranks (uneven, some ranks empty, one value on a rank), outputs,
 * gradients and new state are those of one rank that holds the whole batch. One readback, one collective, one upload,
 * of [count, mean C, m2 C] in float64, or [positives, W, mean C, m2 C] where examples have weights, which all ranks must give
 * or none. With a `worldSize` of 1 it is {@linkcode batchNormForward}.
 *
 * @param state this rank's replica of the state before this batch; it is not changed
 * @param input this rank's part of the batch, logical shape (N, C, ...spatial); N may be 0
 * @param effects `device`: where everything lives; `group`: the ranks to share statistics with
 * @returns output, new state, moments of all ranks, and what backward needs, all frozen
 * @throws (rejects with) CollectiveError, the same on every rank, where a rank failed before the collective (`cause`: for
 * a wrong shape the TypeError of {@linkcode batchNormForward}), did something else, or did not arrive; RangeError on
 * every rank for one value per channel, or one positive weight, in the whole group. What fails after the collective, such as a lost device, is this
 * rank's own error; the others learn of it at their next collective. The given state stays valid
 *
 * @example Two replicas with one value each, which ordinary batch norm could not normalize at all
 * ```ts
 * import { initBatchNorm, referenceDevice, runRanks, syncBatchNormForward, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 1, { eps: 0 });
 * const outputs = await runRanks(2, async (group) => {
 *   const input = tensor(device, [group.rank === 0 ? 1 : 3], [1, 1]);
 *   const { output } = await syncBatchNormForward(state, input, { device, group });
 *   return [...await toArray(device, output)];
 * });
 * assert.deepEqual(outputs, [[-1], [1]]);
 * ```
 */
export async function syncBatchNormForward<A>(
  state: BatchNormState<A>,
  input: Tensor<A>,
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: SyncForwardOptions<A> = {},
): Promise<GroupForward<A>> {
  const [forward] = await overGroup(effects, options, oneForward(state, input, options));
  return forward;
}

/**
 * {@linkcode syncBatchNormForward} on a thread that may be held up: a worker, a process of MPI. The same collective, the same
 * bits; the device must read back at once, as the reference and Wasm devices do.
 *
 * @throws what the awaited function rejects with; DeviceError "unsupported", as the `cause` of a CollectiveError on every
 * rank, where a device cannot read back at once
 */
export function syncBatchNormForwardBlocking<A>(
  state: BatchNormState<A>,
  input: Tensor<A>,
  effects: { readonly device: Device<A>; readonly group: BlockingGroup },
  options: ForwardOptions<A> = {},
): GroupForward<A> {
  return overBlockingGroup(effects, oneForward(state, input, options))[0];
}

function oneForward<A>(state: BatchNormState<A>, input: Tensor<A>, options: ForwardOptions<A>) {
  const label = `syncBatchNormForward C=${shown(state?.numFeatures)} ${input?.dtype}`;
  return forwards([{ stateOf: () => state, input, options, action: ACTION }], label);
}

/** One batch norm of a forward pass over a group. */
export interface ForwardCall<A> {
  /** Finds or makes the state on a handle, in the turn of the call: what it throws is this rank's failure on every rank. */
  readonly stateOf: (device: Device<A>) => BatchNormState<A>;
  readonly input: Tensor<A>;
  readonly options: ForwardOptions<A>;
  readonly action: string;
}

/** {@linkcode syncBatchNormForward} of batch norms that are ready together; the label is what the ranks compare. */
export function forwards<A>(
  calls: readonly ForwardCall<A>[],
  label: string,
): Crossing<A, readonly GroupForward<A>[]> {
  const weighted = calls.map(({ options }) => isWeighted(options));
  const formats = weighted.map((weighted) => weighted ? weightedMomentsWire : momentsWire);
  return {
    action: ACTION,
    // Weights on some ranks alone are another call.
    label: weighted.includes(true) ? `${label} weights=${weighted.map(Number)}` : label,
    format: formats,
    channels: calls.map(({ input }) => input?.shape?.[1]),
    tidy: true,
    alone: (device) =>
      compose(device, (d) =>
        calls.map(({ stateOf, input, options, action }) => {
          const state = stateOf(d);
          const chosen = checkForward(d, state, input, options, action);
          return composed(d, state, input, alone(enough(d, input, chosen, action)), chosen);
        })),
    launch: (scope, worldSize, read) => {
      const checked = calls.map((call) => checkedCall(scope, call));
      const own = compose(scope, (d) =>
        checked.map(({ input, options }) => {
          const local = reduced(d, input, options);
          return { local, wire: read(d, local) };
        }));
      const made = own.map(({ local }) => local);
      const conclude = (totals: readonly Float64Array[]) => {
        totals.forEach((total, i) => checkCount(countOf(total), calls[i].action));
        const results = compose(
          scope,
          (d) =>
            checked.map(({ state, before, input, options }, i): GroupForward<A> => {
              const channels = input.shape[1];
              const moments = groupMoments(d, totals[i], channels, worldSize, formats[i]);
              const forward = composed<A, GroupForward<A>>(d, before, input, moments, options);
              return forward.state === before ? Object.freeze({ ...forward, state }) : forward;
            }),
        );
        scope.free(...made);
        return results;
      };
      return { wires: own.map(({ wire }) => wire), made, conclude };
    },
  };
}

/** Checks a call, and takes snapshots: nobody may change what was checked while the collective is under way. */
function checkedCall<A>(device: Device<A>, { stateOf, input, options, action }: ForwardCall<A>) {
  const state = stateOf(device);
  const chosen = checkForward(device, state, input, options, action);
  const { residual } = chosen;
  return {
    state,
    before: Object.isFrozen(state) ? state : { ...state },
    input: fixed(input),
    options: { ...chosen, residual: residual && fixed(residual) },
  };
}

type Chosen<A> = Weighed<A, ForwardOptions<A>>;

const OPTIONS = [
  ...["activation", "residual", "weights", "lengths", "updateRunningStats", "signal", "donate"],
];

/** Checks a call, and gives its options with its weights as they are from here on. */
function checkForward<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  input: Tensor<A>,
  options: ForwardOptions<A>,
  action: string,
): Chosen<A> {
  checkCall(device, state, input, options, OPTIONS, action);
  checkKept(options, action);
  checkOneOf(options.updateRunningStats, SWITCH, "updateRunningStats", action);
  return weighed(device, input, options, action);
}

/** Forward is its two parts: normalize with the moments, and let the running statistics follow them. */
function composed<A, F extends LocalForward<A> | GroupForward<A>>(
  device: Device<A>,
  state: BatchNormState<A>,
  input: Tensor<A>,
  moments: F["moments"],
  options: Chosen<A>,
): F {
  const { output, saved } = normalized(device, state, input, moments, options);
  const next = options.updateRunningStats === false ? state : advance(device, state, moments);
  return Object.freeze({ output, state: next, moments, saved }) as unknown as F;
}
