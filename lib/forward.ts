/**
 * Training forward: normalize a batch with its own statistics, or with those of the whole process group.
 *
 * All that one direction launches is one batch: one submit on a GPU. The label of a collective names function, channels
 * and dtype. Ranks that differ in eps, momentum or `updateRunningStats` are not caught by it: their statistics still
 * agree, their states do not.
 *
 * @module
 */

import type { CollectiveOptions, ReduceGroup } from "./collectives.ts";
import {
  checkCall,
  checkCount,
  checkDevice,
  checkGroup,
  checkKept,
  checkMoments,
} from "./checks.ts";
import type { Device } from "./device.ts";
import { normalize, tensorLike } from "./epilogue.ts";
import { apart, combineEach, exchangeAll, partsOf, sideBySide } from "./exchange.ts";
import { mergeMoments } from "./moments.ts";
import { batch, region } from "./ownership.ts";
import { advance } from "./running_stats.ts";
import type { BatchNormState } from "./state.ts";
import { extents, type Format, type Tensor } from "./tensor.ts";

/** Options of a training forward pass. */
export interface ForwardOptions<A> {
  /** Applied last: y = max(y, 0). */
  readonly activation?: "relu";
  /** Added before the activation; shape and dtype of the input, any format. */
  readonly residual?: Tensor<A>;
  /** Whether the running statistics follow this batch; true by default. */
  readonly updateRunningStats?: boolean;
}

/** Options of a synchronised forward pass. */
export interface SyncForwardOptions<A>
  extends ForwardOptions<A>, Pick<CollectiveOptions, "signal"> {}

/**
 * What backward needs of forward. Borrows the input, the weight and the bias, and with an activation the output: keep
 * them until backward is done. The moments belong to it.
 */
export interface Residuals<A> {
  /** The input of forward, borrowed. */
  readonly input: Tensor<A>;
  /** The output of forward where an activation was applied, borrowed; else null. */
  readonly output: Tensor<A> | null;
  /** Moments of the batch over all ranks, in the device's own layout. */
  readonly moments: A;
  /** The weight of forward, borrowed, or null. */
  readonly weight: A | null;
  /** The bias of forward, borrowed, or null. */
  readonly bias: A | null;
  /** The eps of forward. */
  readonly eps: number;
  /** Memory order of the residual that was added, or null where none was. */
  readonly residualFormat: Format | null;
}

/** Residuals of a local forward; only a local backward takes them. */
export interface LocalResiduals<A> extends Residuals<A> {
  /** Sets them apart from a synchronised forward's. */
  readonly kind: "local";
}

/** Residuals of a synchronised forward; only a synchronised backward over as many ranks takes them. */
export interface GroupResiduals<A> extends Residuals<A> {
  /** Sets them apart from a local forward's. */
  readonly kind: "group";
  /** Number of ranks whose statistics these are. */
  readonly worldSize: number;
}

/** What a local forward returns. */
export interface LocalForward<A> {
  /** The normalized batch, in the input's shape, dtype and format. */
  readonly output: Tensor<A>;
  /** The state after this batch; the given one where nothing changed. */
  readonly state: BatchNormState<A>;
  /** What backward needs. */
  readonly residuals: LocalResiduals<A>;
}

/** What a synchronised forward returns. */
export interface GroupForward<A> {
  /** The normalized batch of this rank, in the input's shape, dtype and format. */
  readonly output: Tensor<A>;
  /**
   * The state after this batch, with the same bits in its running statistics on every rank that gave the same state and
   * options; the given one where nothing changed.
   */
  readonly state: BatchNormState<A>;
  /** What backward needs. */
  readonly residuals: GroupResiduals<A>;
}

const ACTION = "normalize the batch";

/**
 * Normalizes a batch with its own statistics (ordinary batch normalization, Ioffe and Szegedy 2015, algorithm 1).
 *
 * Per channel, over all samples and positions: y = (x - mean) / sqrt(variance + eps) * weight + bias, then the residual
 * and the activation. Synchronous: nothing is read back, all launches go out together.
 *
 * @param state the state before this batch; it is not changed
 * @param input the batch, logical shape (N, C, ...spatial), float32 or float16
 * @param effects `device`: where everything lives
 * @param options activation, residual, whether running statistics are updated
 * @returns output, new state and residuals, all frozen
 * @throws TypeError where shapes, dtypes or devices do not fit, RangeError for one value per channel, whose variance is
 * nothing to normalize with; nothing has changed then
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
  const { output, state: next, residuals } = forwardAlone(device, state, input, options, ACTION);
  return Object.freeze({
    output,
    state: next,
    residuals: Object.freeze({ kind: "local" as const, ...residuals }),
  });
}

/**
 * Normalizes this rank's part of a batch with the statistics of the whole batch, over all ranks of the group.
 *
 * The law: for any partition of a batch over the ranks (uneven, some ranks empty, one value on a rank), outputs,
 * gradients and new state are those of one rank that holds the whole batch. One readback, one collective, one upload,
 * of [count, mean C, m2 C] in float64. With a `worldSize` of 1 it is {@linkcode batchNormForward}.
 *
 * @param state this rank's replica of the state before this batch; it is not changed
 * @param input this rank's part of the batch, logical shape (N, C, ...spatial); N may be 0
 * @param effects `device`: where everything lives; `group`: the ranks to share statistics with
 * @param options activation, residual, whether running statistics are updated, a signal to give up
 * @returns output, new state and residuals, all frozen
 * @throws (rejects with) CollectiveError, the same on every rank, where a rank failed before the collective (`cause`: for
 * a wrong shape the TypeError of {@linkcode batchNormForward}), did something else, or did not arrive; RangeError on
 * every rank for one value per channel in the whole group. What fails after the collective, such as a lost device, is this
 * rank's own error; the others learn of it at their next collective. The given state stays valid
 *
 * @example Two replicas with one value each, which ordinary batch norm could not normalize at all
 * ```ts
 * import {
 *   initBatchNorm,
 *   referenceDevice,
 *   runRanks,
 *   syncBatchNormForward,
 *   tensor,
 *   toArray,
 * } from "@syncbn/syncbn";
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
  checkDevice(effects, ACTION);
  const label = `syncBatchNormForward C=${state?.numFeatures} ${input?.dtype}`;
  const branch = { stateOf: () => state, input, options, action: ACTION };
  const [forward] = await forwardOverGroup([branch], effects, { label, signal: options?.signal });
  return forward;
}

/** One batch norm of a forward pass over a group. */
export interface ForwardCall<A> {
  /**
   * Finds or makes the state, on the handle that it is given, in the turn of the call: what it throws is this rank's failure
   * on every rank.
   */
  readonly stateOf: (device: Device<A>) => BatchNormState<A>;
  /** This rank's part of the batch. */
  readonly input: Tensor<A>;
  /** Activation, residual, whether running statistics are updated. */
  readonly options: ForwardOptions<A>;
  /** What is about to be done, for messages. */
  readonly action: string;
}

/**
 * Does the work of {@linkcode syncBatchNormForward} for batch norms that are ready together: one readback, one collective.
 *
 * @param calls the batch norms
 * @param effects device and group
 * @param options a signal to give up, and what the caller does, for the other ranks
 * @returns output, new state and residuals of each, all frozen
 */
export async function forwardOverGroup<A>(
  calls: readonly ForwardCall<A>[],
  { device, group }: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: CollectiveOptions,
): Promise<readonly GroupForward<A>[]> {
  const { worldSize } = checkGroup(group, options, ACTION);
  if (worldSize === 1) {
    return batch(
      device,
      (d) =>
        calls.map(({ stateOf, input, options, action }) =>
          asGroup(forwardAlone(d, stateOf(d), input, options, action), 1)
        ),
    );
  }
  const lengths = calls.map(({ input }) => 1 + 2 * input?.shape?.[1]);
  const parts = partsOf(device, calls);
  const launch = (scope: Device<A>) => {
    const checked = calls.map((call) => checkedCall(scope, call));
    if (scope.overlapped && parts > 1) {
      return { checked, wires: scope.overlapped.moments(checked[0].input).wires };
    }
    return batch(scope, (d) => ({
      checked,
      wires: [sideBySide(checked.map(({ input }) => d.momentsToWire(d.moments(input))))],
    }));
  };
  return await region(device, async (scope) => {
    const combine = combineEach(mergeMoments, lengths);
    const { total, launched } = await exchangeAll(
      group,
      () => launch(scope),
      { parts, combine, head: 1, action: ACTION },
      options,
    );
    const wires = apart(total, lengths, ACTION);
    const counts = calls.map(({ action }, i) =>
      checkMoments(wires[i], (lengths[i] - 1) / 2, action)
    );
    return batch(scope, (d) =>
      launched.checked.map(({ state, before, input, options }, i) => {
        const moments = d.momentsFromWire(wires[i]);
        const forward = finish(d, before, input, moments, counts[i], options);
        const next = forward.state === before ? state : forward.state;
        return asGroup({ ...forward, state: next }, worldSize);
      }));
  });
}

/** A forward pass whose statistics are this rank's own. */
function forwardAlone<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  input: Tensor<A>,
  options: ForwardOptions<A>,
  action: string,
): Finished<A> {
  checkCall(device, state, input, options, action);
  checkKept(options, action);
  const { batch: samples, inner } = extents(input.shape);
  const count = samples * inner;
  checkCount(count, action);
  return batch(device, (d) => finish(d, state, input, d.moments(input), count, options));
}

/** Checks a call, and takes snapshots: nobody may change what was checked while the collective is under way. */
function checkedCall<A>(device: Device<A>, { stateOf, input, options, action }: ForwardCall<A>) {
  const state = stateOf(device);
  checkCall(device, state, input, options, action);
  checkKept(options, action);
  const { residual } = options;
  return {
    state,
    before: { ...state },
    input: tensorLike(input, input.data),
    options: { ...options, residual: residual && tensorLike(residual, residual.data) },
  };
}

/** A forward pass that is yet to be called local or synchronised. */
type Finished<A> = Pick<LocalForward<A>, "output" | "state"> & { readonly residuals: Residuals<A> };

function asGroup<A>(forward: Finished<A>, worldSize: number): GroupForward<A> {
  const residuals = Object.freeze({ ...forward.residuals, kind: "group" as const, worldSize });
  return Object.freeze({ ...forward, residuals });
}

/** What follows once the moments of the whole batch are on the device. */
function finish<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  input: Tensor<A>,
  moments: A,
  count: number,
  { activation, residual, updateRunningStats = true }: ForwardOptions<A>,
): Finished<A> {
  // Backward needs the input.
  const epilogue = { residual: residual ?? null, relu: activation === "relu", overwrite: false };
  const output = normalize(device, input, { source: "batch", moments }, state, epilogue);
  return {
    output,
    state: updateRunningStats ? advance(device, state, moments, count) : state,
    residuals: {
      input,
      output: epilogue.relu ? output : null,
      moments,
      weight: state.weight,
      bias: state.bias,
      eps: state.eps,
      residualFormat: residual?.format ?? null,
    },
  };
}
