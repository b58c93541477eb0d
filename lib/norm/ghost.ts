/**
 * Ghost batches: statistics over groups of consecutive samples of a rank, in place of the whole batch's.
 *
 * A composition of passes that are there: each group is a batch by itself. So only running statistics cross a group of ranks,
 * and backward never does.
 */

import { rectifiedBy } from "../activation.ts";
import { checkDevice } from "../check_effects.ts";
import { checkOneOf, SWITCH } from "../check_value.ts";
import type { BlockingGroup, ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { compose, region } from "../ownership.ts";
import type { BatchNormState } from "../state.ts";
import { extents, fixed, type Tensor } from "../tensor.ts";
import { shown, wrongValue } from "../words.ts";
import { checkCall, checkGhost, checkKept, checkRounds } from "./check_call.ts";
import type { ForwardOptions, SyncForwardOptions } from "./forward.ts";
import { advanceBy, after, averages, sumsOf } from "./ghost_running.ts";
import { type LocalSaved, normalized } from "./normalize.ts";
import { joined, samplesOf, weightsOfSamples } from "./samples.ts";
import { checkEnough, type LocalMoments, momentsOf } from "./statistics.ts";
import { type Crossing, overBlockingGroup, overGroup, type Read, whenRead } from "./steps.ts";
import { isWeighted, travelling, weighed } from "./weights.ts";

/** Options of a forward pass over ghost batches. */
export interface GhostOptions<A> extends ForwardOptions<A> {
  /** Samples of a group, an integer >= 1; what remains of a batch is a smaller group. */
  readonly ghost: number;
}

/** Options of a forward pass over ghost batches whose running statistics are shared. */
export interface SyncGhostOptions<A>
  extends GhostOptions<A>, Pick<SyncForwardOptions<A>, "signal"> {}

/** What `batchNormBackwardGhost` needs. Borrows what a plain forward's does, all of it whole. */
export interface GhostSaved<A> extends Omit<LocalSaved<A>, "kind" | "moments"> {
  /** Sets it apart from a plain forward's. */
  readonly kind: "ghost";
  /** Samples of a group. */
  readonly ghost: number;
  /** The statistics of each group. */
  readonly moments: readonly LocalMoments<A>[];
}

/** A batch that was normalized in groups. */
export interface GhostForward<A> {
  /** The normalized batch, in the input's shape, dtype and format. */
  readonly output: Tensor<A>;
  /** The state after this batch, which counts as one; the given one where nothing changed. */
  readonly state: BatchNormState<A>;
  /** What backward needs. */
  readonly saved: GhostSaved<A>;
}

const ACTION = "normalize the batch in groups";

/**
 * Normalizes each group of `ghost` consecutive samples by itself (Hoffer et al. 2017, "Train longer, generalize better",
 * algorithm 1).
 *
 * Outputs and gradients are those of `batchNormForward` of each group, by the weights of its examples where there are some. The
 * running statistics follow once, by the mean of the groups' means and variances, weighted by their counts, or by the sums of
 * their weights; a group in which nothing counts has the bias as its output. Synchronous: nothing is read back. Groups over
 * several ranks come from `split` of a process group instead.
 *
 * @param state the state before this batch; it is not changed
 * @param input the batch, logical shape (N, C, ...spatial), float32 or float16
 * @param effects `device`: where everything lives; it must have the pass "arrange"
 * @param options `ghost`: samples of a group; those of `batchNormForward`
 * @returns output, new state, and what `batchNormBackwardGhost` needs, all frozen
 * @throws what `batchNormForward` throws, for one value per channel, or one positive weight, in any group
 *
 * @example
 * ```ts
 * import { batchNormForwardGhost, initBatchNorm, referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 1, { eps: 0 });
 * const x = tensor(device, [1, 3, 10, 30], [4, 1]);
 * const { output } = batchNormForwardGhost(state, x, { device }, { ghost: 2 });
 * assert.deepEqual(await toArray(device, output), Float32Array.of(-1, 1, -1, 1));
 * ```
 */
export function batchNormForwardGhost<A>(
  state: BatchNormState<A>,
  input: Tensor<A>,
  effects: { readonly device: Device<A> },
  options: GhostOptions<A>,
): GhostForward<A> {
  const { device } = checkDevice(effects, ACTION);
  return compose(device, (d) => launched(d, state, input, options));
}

/**
 * {@linkcode batchNormForwardGhost} on each rank, with running statistics of the groups of all ranks, so that states stay
 * equal: one collective, for them alone.
 *
 * The law: for any partition of a batch over the ranks at multiples of `ghost` samples, outputs, gradients and new state
 * are those of one rank.
 *
 * @param effects `device` and `group`; backward needs none
 * @throws (rejects with) what `syncBatchNormForward` rejects with, for one value per channel in any group of any rank
 */
export async function syncBatchNormForwardGhost<A>(
  state: BatchNormState<A>,
  input: Tensor<A>,
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: SyncGhostOptions<A>,
): Promise<GhostForward<A>> {
  const label = labelOf(state, input);
  return await overGroup(
    effects,
    options,
    ghostForward({ stateOf: () => state, input, options }, label),
  );
}

/** {@linkcode syncBatchNormForwardGhost} on a thread that may be held up. */
export function syncBatchNormForwardGhostBlocking<A>(
  state: BatchNormState<A>,
  input: Tensor<A>,
  effects: { readonly device: Device<A>; readonly group: BlockingGroup },
  options: GhostOptions<A>,
): GhostForward<A> {
  const label = labelOf(state, input);
  const call = { stateOf: () => state, input, options };
  // What is read at once is not awaited.
  return overBlockingGroup(effects, ghostForward(call, label)) as GhostForward<A>;
}

const labelOf = <A>(state: BatchNormState<A>, input: Tensor<A>) =>
  `syncBatchNormForwardGhost C=${shown(state?.numFeatures)} ${input?.dtype}`;

/** A forward pass over ghost batches. */
export interface GhostCall<A> {
  /** Finds or makes the state on a handle, in the turn of the call. */
  readonly stateOf: (device: Device<A>) => BatchNormState<A>;
  readonly input: Tensor<A>;
  readonly options: GhostOptions<A>;
}

/** {@linkcode syncBatchNormForwardGhost} as a crossing; the label is what the ranks compare. */
export function ghostForward<A>(
  call: GhostCall<A>,
  label: string,
): Crossing<A, GhostForward<A> | Promise<GhostForward<A>>> {
  const { input, options } = call;
  return {
    action: ACTION,
    label: travelling(options, label).label,
    format: averages,
    channels: [input?.shape?.[1]],
    alone: (device, read) => ghostAlone(device, call, read),
    launch: (scope, _worldSize, read) => {
      const { sums, finish } = begin(scope, call, read);
      return { wires: [sums], conclude: ([total]) => finish(total) };
    },
  };
}

/** The forward pass of one rank that may wait: it reads back where only the device knows the sums of weights. */
export function ghostAlone<A>(
  device: Device<A>,
  call: GhostCall<A>,
  read: Read<A>,
): GhostForward<A> | Promise<GhostForward<A>> {
  const { stateOf, input, options } = call;
  if (device.toWireNow || options?.weights === undefined) {
    return compose(device, (d) => launched(d, stateOf(d), input, options));
  }
  return region(device, (scope): GhostForward<A> | Promise<GhostForward<A>> => {
    const state = stateOf(scope);
    if (options.updateRunningStats === false || state?.runningMean === null) {
      return compose(scope, (d) => launched(d, state, input, options));
    }
    const { sums, finish } = begin(scope, { ...call, stateOf: () => state }, read);
    return whenRead([sums], ([total]) => finish(total));
  });
}

/** The forward pass of one rank, of which nothing is read back. */
function launched<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  input: Tensor<A>,
  options: GhostOptions<A>,
): GhostForward<A> {
  const made = inGroups(device, state, input, options);
  const { saved } = made;
  saved.moments.forEach((moments) => checkEnough(moments, ACTION));
  const next = options.updateRunningStats === false ? state : advanceBy(device, state, saved);
  return Object.freeze({ ...made, state: next });
}

/** Normalizes the groups and reads their statistics; `finish` does the rest, once those of all ranks are there. */
function begin<A>(scope: Device<A>, { stateOf, input, options }: GhostCall<A>, read: Read<A>) {
  const state = stateOf(scope);
  const before = { ...state };
  const { output, saved, wires } = compose(scope, (d) => {
    const made = inGroups(d, before, input, options);
    return { ...made, wires: made.saved.moments.map(({ data }) => read(d, data)) };
  });
  const { updateRunningStats } = options;
  const { format } = travelling(options, "");
  const finish = (total: Float64Array): GhostForward<A> => {
    const tracked = updateRunningStats !== false && total[0] > 0;
    const next = tracked ? compose(scope, (d) => after(d, before, total, format)) : before;
    return Object.freeze({ output, saved, state: next === before ? state : next });
  };
  const sums = whenRead(wires, (all) => sumsOf(before, all, format, ACTION));
  return { sums, finish };
}

/** Where the groups of a batch begin and end; an empty batch is one group. */
export function groupsOf(samples: number, ghost: number): readonly (readonly [number, number])[] {
  const count = Math.max(1, Math.ceil(samples / ghost));
  return Array.from({ length: count }, (_, i) => [i * ghost, Math.min(samples, (i + 1) * ghost)]);
}

const OPTIONS = [
  ...[
    "ghost",
    "activation",
    "residual",
    "weights",
    "lengths",
    "updateRunningStats",
    "signal",
    "donate",
  ],
];

/** Normalizes each group of a batch. */
function inGroups<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  given: Tensor<A>,
  options: GhostOptions<A>,
): Omit<GhostForward<A>, "state"> {
  checkCall(device, state, given, options, OPTIONS, ACTION);
  checkRounds(device, ACTION);
  checkKept(options, ACTION);
  const { ghost, activation, residual, updateRunningStats } = options;
  checkGhost(ghost, ACTION);
  checkOneOf(updateRunningStats, SWITCH, "updateRunningStats", ACTION);
  // Nobody may change what was checked while the collective is under way.
  const input = fixed(given);
  const { batch: samples, inner } = extents(input.shape);
  const groups = groupsOf(samples, ghost);
  const single = groups.find(([from, to]) => (to - from) * inner === 1);
  if (single !== undefined && !isWeighted(options)) {
    const wanted = `each group needs more than 1 value per channel to have a variance; ` +
      `with ghost ${ghost} and ${samples} samples`;
    throw wrongValue(ACTION, wanted, 1, `number in the group from sample ${single[0]} on`);
  }
  const weights = weighed(device, input, options, ACTION);
  const whole = groups.length === 1;
  const take = (tensor: Tensor<A>, [from, to]: readonly [number, number]) =>
    whole ? tensor : samplesOf(device, tensor, from, to);
  const parts = groups.map((range) => {
    const x = take(input, range);
    const added = residual && take(residual, range);
    const counted = whole ? weights : weightsOfSamples(device, weights, ...range);
    const moments = momentsOf(device, x, counted, ACTION);
    const { output } = normalized(device, state, x, moments, { activation, residual: added });
    if (!whole) {
      device.free(...[x, added, counted.weights].flatMap((part) => part ? [part.data] : []));
    }
    return { moments, output };
  });
  const outputs = parts.map(({ output }) => output);
  const output = joined(device, outputs, input);
  if (!whole) device.free(...outputs.map(({ data }) => data));
  const { weight, bias, eps } = state;
  const saved = Object.freeze({
    ...{ kind: "ghost", ghost, input, weight, bias, eps } as const,
    output: activation === undefined ? null : rectifiedBy(activation, output),
    moments: Object.freeze(parts.map(({ moments }) => moments)),
    residualFormat: residual?.format ?? null,
    ...(weights.weights && { weights: weights.weights }),
    ...(weights.lengths && { lengths: weights.lengths }),
  });
  return { output, saved };
}
