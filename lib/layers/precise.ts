/** Population statistics of a whole model over a data set: "precise" batch norm, AdaBN, and what SWA and EMA need. */

import { checkDevice, checkGroup } from "../check_effects.ts";
import type { ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { sum } from "../moments.ts";
import {
  allReduceMoments,
  batchMoments,
  type LocalMoments,
  mergeMoments,
} from "../norm/statistics.ts";
import { updateRunningStats } from "../norm/running.ts";
import type { WeightOptions } from "../norm/weights.ts";
import { region } from "../ownership.ts";
import { type Tensor, tensor } from "../tensor.ts";
import { refused, wrongKind } from "../words.ts";
import { inferLayer } from "./apply.ts";
import { type AnyLayer, type BatchNormLayer, lazyError } from "./check_layer.ts";
import { withState } from "./layer.ts";
import { checkChoice, type LayerChoice, layersOf, replaceNodes } from "./replace.ts";
import { resetRunningStats } from "./reset.ts";
import { called } from "../tree.ts";

/** What a forward function of {@linkcode preciseStatistics} runs its batch norms with. */
export interface PreciseForward<A> {
  /** A region of the device: what is made through it is freed after the batch. */
  readonly device: Device<A>;
  /** Runs a layer of the given model in evaluation, in place of `applyLayer` or `inferLayer`; examples may have weights. */
  readonly norm: (
    layer: BatchNormLayer<A>,
    input: Tensor<A>,
    options?: WeightOptions<A>,
  ) => Tensor<A>;
}

/** What {@linkcode preciseStatistics} is run with. */
export interface PreciseEffects<A> {
  /** Where the model lives. */
  readonly device: Device<A>;
  /** The ranks that the data set is spread over; left out for one. */
  readonly group?: ReduceGroup;
}

/** Batches that can be gone through several times. */
export type Batches<B> = readonly B[] | (() => Iterable<B> | AsyncIterable<B>);

const ACTION = "estimate the statistics";

/**
 * Replaces the running statistics of a model by those of a whole data set.
 *
 * Layer by layer, in the order in which forward runs them: a layer's inputs are computed with the new statistics of those
 * before it, and their moments are merged over all batches and ranks (Chan et al.). So the result is that of one batch with all
 * the data, whatever its split over batches and ranks, but for rounding; as many passes over the data as there are layers.
 * (fvcore's `update_bn_stats` and torch's `swa_utils.update_bn` take one pass, normalize every layer by its own
 * batch, and depend on the split: see "Statistics estimated anew" in the recipes for that.) Wu and Johnson 2021, "Rethinking
 * Batch in BatchNorm", section 3; of another domain's data it is AdaBN (Li et al. 2016).
 *
 * A layer that forward runs twice for a batch takes both inputs, the second of which its old statistics have made. Frozen
 * layers and those that track nothing stay as they are; momentum and counter of all do.
 *
 * @param model a tree with layers as of `initLayer` in it; it is not changed
 * @param batches this rank's batches, in a list or from a function that begins anew; none on a rank are fine
 * @param forward runs the model of its first argument, whose layers go to `norm`; may await
 * @param effects `device`; `group` where ranks share the data
 * @returns a model of the same type with new running statistics, equal on all ranks; a layer that saw nothing is kept
 * @throws (rejects with) what forward throws, on all ranks; TypeError for a layer that is none of the model's or lazy, and
 * where ranks run layers in another order; RangeError for one value per channel in all the data
 *
 * @example
 * ```ts
 * import { initLayer, preciseStatistics, referenceDevice, tensor } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const model = { norm: initLayer(device, "batchNorm1d", 1) };
 * const precise = await preciseStatistics(model, [[1, 3], [5]], (model, values, { device, norm }) => {
 *   norm(model.norm, tensor(device, values, [values.length, 1]));
 * }, { device });
 * const { runningMean, runningVar } = precise.norm.state;
 * assert.deepEqual(await device.download(runningMean!), Float32Array.of(3));
 * assert.deepEqual(await device.download(runningVar!), Float32Array.of(4));
 * ```
 */
export async function preciseStatistics<A, T, B>(
  model: T,
  batches: Batches<B>,
  forward: (model: T, batch: B, run: PreciseForward<A>) => unknown,
  effects: PreciseEffects<A>,
  options: LayerChoice = {},
): Promise<T> {
  const { group } = checkDevice(effects, ACTION);
  if (group !== undefined) checkGroup(group, {}, ACTION);
  const choice = checkChoice(options, ACTION);
  if (typeof batches !== "function" && !Array.isArray(batches)) {
    throw wrongKind(ACTION, "batches must be a list, or a function that begins anew", batches);
  }
  const nodes = layersOf<A>(model, ACTION, choice);
  const order = [...nodes.keys()];
  for (const [layer, [path]] of nodes) {
    if (layer.state === null) throw lazyError(layer, `${ACTION} at ${called(path)}`);
  }
  const now = new Map<AnyLayer<A>, BatchNormLayer<A>>(
    order.map((layer) => [layer, layer as BatchNormLayer<A>]),
  );
  const left = new Set(
    order.filter((layer) =>
      layer.frozen === undefined && layer.state?.runningMean !== null &&
      nodes.get(layer)!.some(choice.only)
    ),
  );
  // In one region, so that a pass that fails leaves no moments of earlier batches behind.
  return await region(effects.device, async (device) => {
    while (true) {
      const pass = gather({ device, model, batches, forward, now, left });
      const found = await agree(pass, order, group);
      if (found === null) break;
      const own = (await pass).moments;
      const layer = now.get(found.layer)!;
      now.set(found.layer, await estimated(device, layer, own ?? found, group));
      left.delete(found.layer);
    }
    const precise = (layer: AnyLayer<A>) => now.get(layer)!;
    return replaceNodes<T, AnyLayer<A>>(model, nodes, choice.only, ACTION, precise);
  });
}

interface Gathered<A> {
  readonly target: AnyLayer<A> | null;
  readonly moments: LocalMoments<A> | null;
}

/** One pass over this rank's batches: moments of the first layer that has no new statistics yet. */
async function gather<A, T, B>({ device, model, batches, forward, now, left }: {
  readonly device: Device<A>;
  readonly model: T;
  readonly batches: Batches<B>;
  readonly forward: (model: T, batch: B, run: PreciseForward<A>) => unknown;
  readonly now: ReadonlyMap<AnyLayer<A>, BatchNormLayer<A>>;
  readonly left: ReadonlySet<AnyLayer<A>>;
}): Promise<Gathered<A>> {
  let target: AnyLayer<A> | null = null;
  let total: LocalMoments<A> | null = null;
  for await (const batch of typeof batches === "function" ? batches() : batches) {
    const before: LocalMoments<A> | null = total;
    const after: Pick<Gathered<A>, "moments"> = await region(device, async (scope) => {
      let moments: LocalMoments<A> | null = before;
      const norm: PreciseForward<A>["norm"] = (layer, input, options = {}) => {
        const current = now.get(layer);
        if (current === undefined) {
          throw refused(ACTION, "norm must be given a layer of the model", "layer is another");
        }
        const output = inferLayer(current, input, { device: scope }, options);
        if (left.has(layer) && (target === null || target === layer)) {
          target = layer;
          const own = batchMoments(input, { device: scope }, options);
          moments = moments === null ? own : mergeMoments(moments, own, { device: scope });
        }
        return output;
      };
      await forward(model, batch, Object.freeze({ device: scope, norm }));
      return { moments };
    });
    total = after.moments;
    if (before !== null && before !== total) device.free(before.data);
  }
  return { target, moments: total };
}

/** What ranks have gathered. */
interface Agreed<A> {
  readonly layer: AnyLayer<A>;
  /** Whether examples had weights. */
  readonly weighted: boolean;
}

/** The layer that all ranks have gathered, of those that had any batch; null where none did. */
async function agree<A>(
  pass: Promise<Gathered<A>>,
  order: readonly AnyLayer<A>[],
  group: ReduceGroup | undefined,
): Promise<Agreed<A> | null> {
  // Over before the collective begins: a pass may take longer than ranks wait for each other. Its failure travels.
  const isWeighted = ({ moments }: Gathered<A>) => moments?.positives !== undefined;
  const wire = pass.then((own) =>
    Float64Array.of(...order.map((layer) => +(layer === own.target)), +isWeighted(own))
  );
  const own = await wire.catch(() => null);
  if (group === undefined || group.worldSize === 1) {
    const { target, ...rest } = await pass;
    return target && { layer: target, weighted: isWeighted({ target, ...rest }) };
  }
  const label = `preciseStatistics L=${order.length}`;
  const total = await group.allReduce(own ?? wire, sum, { label });
  const found = order.filter((_, i) => total[i] > 0);
  if (found.length === 0) return null;
  if (found.length === 1) return { layer: found[0], weighted: total[order.length] > 0 };
  throw refused(
    ACTION,
    "all ranks must run the layers in one order",
    `first ones are ${found.length}`,
  );
}

/** A layer whose running statistics are those moments, of all ranks; a rank that has none knows what others have. */
async function estimated<A>(
  device: Device<A>,
  layer: BatchNormLayer<A>,
  own: LocalMoments<A> | Agreed<A>,
  group: ReduceGroup | undefined,
): Promise<BatchNormLayer<A>> {
  const { state } = layer;
  const result = await region(device, async (scope) => {
    const none = (channels: number) => tensor(scope, [], [0, channels]);
    const local = "data" in own ? own : batchMoments(
      none(state.numFeatures),
      { device: scope },
      own.weighted ? { weights: none(1) } : {},
    );
    const moments = group === undefined
      ? local
      : await allReduceMoments(local, { device: scope, group });
    const fresh = resetRunningStats(scope, { ...state, momentum: 1 });
    const next = updateRunningStats(fresh, moments, { device: scope });
    const { runningMean, runningVar } = next === fresh ? state : next;
    return { ...state, runningMean, runningVar };
  });
  if ("data" in own) device.free(own.data);
  return withState<A, BatchNormLayer<A>>(layer, Object.freeze(result));
}
