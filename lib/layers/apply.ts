/** One way to run any layer of a model: local or synchronised, lazy, learning or frozen. */

import type { Activation } from "../activation.ts";
import { checkDevice, checkGiven } from "../check_effects.ts";
import type { ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { checkKept } from "../norm/check_call.ts";
import type { ForwardOptions, SyncForwardOptions } from "../norm/forward.ts";
import type { GhostSaved } from "../norm/ghost.ts";
import { batchNormInfer, type InferOptions } from "../norm/infer.ts";
import type { GroupSaved, LocalSaved } from "../norm/normalize.ts";
import type { RenormSaved } from "../norm/renorm.ts";
import { overGroup } from "../norm/steps.ts";
import { isWeighted } from "../norm/weights.ts";
import { region } from "../ownership.ts";
import { type BatchNormState, initBatchNorm } from "../state.ts";
import { checkTensor, type Tensor } from "../tensor.ts";
import { quote, shown } from "../words.ts";
import { type AnyLayer, checkLayer, checkRank, lazyError } from "./check_layer.ts";
import { type LayerEffects, namedGroup } from "./effects.ts";
import {
  type BatchNormLayer,
  type LazyBatchNormLayer,
  type MaterializedLayer,
  withState,
} from "./layer.ts";
import { locally, over } from "./ways.ts";

/** What a synchronised layer saves. */
export interface GroupLayerSaved<A> extends GroupSaved<A> {
  /** Name of the group of forward. */
  readonly processGroup: string;
}

/** What a synchronised layer that renormalizes saves. */
export interface GroupRenormSaved<A> extends RenormSaved<A, GroupSaved<A>> {
  /** Name of the group of forward. */
  readonly processGroup: string;
}

/** What a frozen layer saves. Borrows the input, the state and the residual: keep them until backward is done. */
export interface FrozenSaved<A> {
  /** Sets them apart from those of a layer that learns. */
  readonly kind: "frozen";
  /** The state of forward, borrowed. */
  readonly state: BatchNormState<A>;
  /** The input of forward, borrowed. */
  readonly input: Tensor<A>;
  /** Activation, residual and weights of forward, tensors borrowed. */
  readonly options: Pick<ForwardOptions<A>, "activation" | "residual" | "weights" | "lengths">;
  /** Whether weight and bias have gradients. */
  readonly learnsAffine: boolean;
}

/** What `backwardLayer` needs of {@linkcode applyLayer}. */
export type LayerSaved<A> =
  | LocalSaved<A>
  | GroupLayerSaved<A>
  | GhostSaved<A>
  | RenormSaved<A, LocalSaved<A>>
  | GroupRenormSaved<A>
  | FrozenSaved<A>;

/** What {@linkcode applyLayer} resolves to. */
export interface LayerForward<A, L extends BatchNormLayer<A> = BatchNormLayer<A>> {
  /** The normalized batch of this rank, in the input's shape, dtype and format. */
  readonly output: Tensor<A>;
  /** The layer after this batch; the given one where nothing changed. */
  readonly layer: L;
  /** What backward needs. */
  readonly saved: LayerSaved<A>;
}

const ACTION = "apply the layer";

/**
 * Runs a layer in training: locally, or over the group that it names.
 *
 * A layer whose `processGroup` is null normalizes with its own rank's batch, reads nothing back and needs no `groups`; any
 * other does what `syncBatchNormForward` does over `effects.groups[processGroup]`, in one collective that is called before
 * the first await. A lazy layer takes its channels from the input, and its state is made. A frozen one normalizes with its
 * running statistics and never communicates.
 *
 * @param layer the layer before this batch; it is not changed
 * @param input this rank's batch, logical shape (N, C, ...spatial) of a rank that the layer's kind takes
 * @param effects `device`; `groups` where the layer is synchronised
 * @returns output, new layer (with all other fields of the given one) and what backward needs, all frozen
 * @throws (rejects with) TypeError or RangeError for what is no layer, for a batch of a wrong rank or shape, for a name
 * that `effects.groups` lacks; in a synchronised layer what is wrong with layer and input becomes a CollectiveError on
 * every rank, as in `syncBatchNormForward`. The given layer stays valid
 *
 * @example The same call for a local and a synchronised layer
 * ```ts
 * import { applyLayer, initLayer, referenceDevice, runRanks, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const layer = initLayer(device, "batchNorm1d", 1, { eps: 0, processGroup: "world" });
 * const outputs = await runRanks(2, async (group) => {
 *   const input = tensor(device, [group.rank === 0 ? 1 : 3], [1, 1]);
 *   const { output } = await applyLayer(layer, input, { device, groups: { world: group } });
 *   return [...await toArray(device, output)];
 * });
 * assert.deepEqual(outputs, [[-1], [1]]);
 * ```
 */
export function applyLayer<A, L extends BatchNormLayer<A>>(
  layer: L,
  input: Tensor<A>,
  effects: LayerEffects<A>,
  options?: SyncForwardOptions<A>,
): Promise<LayerForward<A, L>>;
/** Runs a layer that may be lazy in training; all is as above, and the new layer has a state. */
export function applyLayer<A, L extends BatchNormLayer<A> | LazyBatchNormLayer>(
  layer: L,
  input: Tensor<A>,
  effects: LayerEffects<A>,
  options?: SyncForwardOptions<A>,
): Promise<LayerForward<A, MaterializedLayer<A, L>>>;
export async function applyLayer<A>(
  layer: AnyLayer<A>,
  input: Tensor<A>,
  effects: LayerEffects<A>,
  options: SyncForwardOptions<A> = {},
): Promise<LayerForward<A>> {
  const named = groupOf(layer, effects);
  if (named === null) {
    return applyLocally(layer, input, checkDevice(effects, ACTION).device, options);
  }
  const { group, name } = named;
  // A snapshot: nobody may change the layer while the collective is under way.
  const own = { ...layer };
  const stateOf = (scope: Device<A>): BatchNormState<A> => {
    checkGiven(options, ACTION);
    checkCall(own, input);
    namedGroup(name, effects, ACTION);
    return stateOrNew(own, input, scope);
  };
  const { signal, ...all } = withActivation(own, options);
  const call = { stateOf, input, options: all, action: "normalize the batch" };
  const [kind, channels, dtype] = [own.kind, input?.shape?.[1], input?.dtype].map(text);
  const label = `applyLayer ${kind} ${quote(name)} C=${channels} ${dtype}`;
  const where = { device: effects.device, group };
  const { output, state, saved } = await overGroup(where, { signal }, over(own, call, label));
  // The given layer where nothing changed: not in the call, and not while it waited.
  const fields = layer as unknown as Readonly<Record<string, unknown>>;
  const same = Object.keys(fields).length === Object.keys(own).length &&
    Object.entries({ ...own, state }).every(([key, value]) => Object.is(fields[key], value));
  return Object.freeze({
    output,
    layer: same
      ? layer as BatchNormLayer<A>
      : Object.freeze({ ...withState<A, typeof own>(own, state) }),
    saved: saved.kind === "ghost" ? saved : Object.freeze({ ...saved, processGroup: name }),
  });
}

function applyLocally<A>(
  layer: AnyLayer<A>,
  input: Tensor<A>,
  device: Device<A>,
  options: SyncForwardOptions<A>,
): LayerForward<A> | Promise<LayerForward<A>> {
  checkGiven(options, ACTION);
  checkCall(layer, input);
  const { signal: _, ...all } = withActivation(layer, options);
  const { state, frozen } = layer;
  if (frozen === undefined) {
    return region(device, (scope) => {
      const before = stateOrNew(layer, input, scope);
      const way = locally(layer, before, input, { device: scope }, all);
      const done = ({ output, state, saved }: Awaited<typeof way>): LayerForward<A> =>
        Object.freeze({ output, layer: withState<A, typeof layer>(layer, state), saved });
      return way instanceof Promise ? way.then(done) : done(way);
    });
  }
  if (state === null) throw lazyError(layer, ACTION);
  checkKept(all, ACTION);
  const { activation, residual, weights, lengths } = all;
  const weighted = isWeighted(all) && { weights, lengths };
  const output = batchNormInfer(state, input, { device }, { activation, residual, ...weighted });
  const counted = weighted && { weights, lengths: lengths?.slice() };
  const chosen = Object.freeze({ activation, residual, ...counted });
  const learnsAffine = frozen === "statistics";
  const saved = { kind: "frozen", state, input, options: chosen, learnsAffine } as const;
  return Object.freeze({ output, layer, saved: Object.freeze(saved) });
}

/**
 * Runs a layer in evaluation: with its running statistics, or with this batch's own where it tracks none. It never
 * communicates, so one rank may evaluate alone.
 *
 * @param layer the layer; evaluation never changes it
 * @param input the batch, logical shape (N, C, ...spatial) of a rank that the layer's kind takes
 * @param effects `device`: where everything lives
 * @returns the normalized batch, in the input's shape, dtype and format
 * @throws TypeError or RangeError for what is no layer, for a batch of a wrong rank or shape, for a lazy layer that has
 * seen no batch
 *
 * @example
 * ```ts
 * import { inferLayer, initLayer, referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const layer = initLayer(device, "batchNorm1d", 1, { eps: 0, processGroup: "world" });
 * const y = inferLayer(layer, tensor(device, [5], [1, 1]), { device });
 * assert.deepEqual(await toArray(device, y), Float32Array.of(5));
 * ```
 */
export function inferLayer<A>(
  layer: BatchNormLayer<A>,
  input: Tensor<A>,
  effects: Pick<LayerEffects<A>, "device">,
  options: InferOptions<A> = {},
): Tensor<A> {
  const action = "evaluate the layer";
  const { device } = checkDevice(effects, action);
  checkGiven(options, action);
  checkLayer(layer, action);
  if (layer.state === null) throw lazyError(layer, action);
  checkRank(layer.kind, input?.shape, action);
  return batchNormInfer(layer.state, input, { device }, withActivation(layer, options));
}

/** A value in a label: what is wrong with it is found in the call's turn. */
function text(value: unknown): string {
  return typeof value === "string" ? value : shown(value);
}

/** The group of a layer; null where it has none. A wrong layer fails in its turn, over whatever group there is to tell. */
export function groupOf<A>(
  layer: AnyLayer<A>,
  effects: LayerEffects<A>,
): { readonly group: ReduceGroup; readonly name: string } | null {
  const asked = layer?.processGroup as unknown;
  if (asked === null || layer?.frozen === "statistics" || layer?.frozen === "all") return null;
  const name = text(asked);
  const groups = Object.entries(effects?.groups ?? {});
  const [, group] = groups.find(([key]) => key === asked) ?? (groups.length === 1 ? groups[0] : []);
  if (typeof group?.allReduce === "function") return { group, name };
  // There is nobody to tell.
  checkLayer(layer, ACTION);
  return { group: namedGroup(name, effects, ACTION), name };
}

function checkCall<A>(layer: AnyLayer<A>, input: Tensor<A>): void {
  checkLayer(layer, ACTION);
  checkRank(layer.kind, input?.shape, ACTION);
}

/** The state of a layer, made by the first batch where it is lazy. */
export function stateOrNew<A>(
  layer: AnyLayer<A>,
  input: Tensor<A>,
  device: Device<A>,
): BatchNormState<A> {
  if (layer.state !== null) return layer.state;
  checkTensor(device, input, ACTION, "input");
  return initBatchNorm(device, input.shape[1], layer.lazy);
}

function withActivation<O extends { readonly activation?: Activation }>(
  { activation }: { readonly activation?: Activation },
  options: O,
): O {
  return options?.activation === undefined ? { ...options, activation } : options;
}
