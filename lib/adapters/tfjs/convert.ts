/**
 * Whole models there and back: a copy whose batch norms are synchronised in training, or none of them.
 *
 * @module
 */

import { checkGroup, checkOptions } from "../../check_effects.ts";
import type { BlockingGroup } from "../../collectives.ts";
import type { Device } from "../../device.ts";
import type { ReadableArray } from "./device_kernels.ts";
import {
  checkAlive,
  checkModel,
  checkNorm,
  normsIn,
  partsOf,
  type PlacedNorm,
  tensorFlowOf,
} from "./internals.ts";
import { kernelsOf } from "./norm.ts";
import { agree, tell, wordsOfText } from "./reduce.ts";
import { synchronize } from "./synced_layer.ts";
import type { TensorFlow, TensorFlowLike, TfModel } from "./framework.ts";
import type { Layer } from "./model.ts";

/** Options of {@linkcode convertSyncBatchNorm}. */
export interface ConvertOptions<A extends ReadableArray> {
  /** Computes the batch norms in training, one of `wasmDevice()`, which stays yours; left out, TensorFlow.js does. */
  readonly device?: Device<A>;
}

const ACTION = "convert the model";

/**
 * Makes a copy of a model whose batch norms take their training statistics over all ranks of a group.
 *
 * Sequential and functional models, nested ones, shared layers and wrappers such as TimeDistributed. Class names, names,
 * config, weights and their order stay Keras's: `save`, `predict` and `getWeights` know no difference, and what was saved
 * loads in plain TensorFlow.js. Any axis, ranks from 2 on, `scale: false` and `center: false` train too. All ranks call it
 * with the same architecture, which is compared; compile the copy afterwards. With a group of one, statistics are each
 * replica's own.
 *
 * @param tf TensorFlow.js
 * @param model a model with weights; it is not changed, and its optimizer does not come along
 * @param group the ranks, which must be able to hold up their threads: workers with `wait: "block"`, or MPI
 * @param options `device`
 * @returns the copy
 * @throws (rejects with) TypeError for a model without batch norm, one without weights, what is no model, a group that cannot
 * hold up this thread; CollectiveError on every rank where the models differ or a rank failed
 *
 * @example
 * ```ts ignore
 * import * as tf from "@tensorflow/tfjs";
 * import { convertSyncBatchNorm } from "@syncbn/syncbn/tfjs";
 *
 * const model = await convertSyncBatchNorm(tf, await tf.loadLayersModel(url), group);
 * model.compile({ optimizer: "adam", loss: "meanSquaredError" });
 * ```
 */
export async function convertSyncBatchNorm<
  M extends TfModel,
  A extends ReadableArray = ReadableArray,
>(
  tf: TensorFlowLike,
  model: M,
  group: BlockingGroup,
  options: ConvertOptions<A> = {},
): Promise<M> {
  const framework = tensorFlowOf(tf, ACTION);
  checkGroup(group, {}, ACTION, { collective: "allReduceBlocking", name: "the group" });
  const label = "tfjs convertSyncBatchNorm";
  try {
    checkOptions(options, ["device"], ACTION);
    const kernels = kernelsOf(framework, options.device);
    const copy = await copied(framework, model, ACTION);
    const norms = normsIn(copy as unknown as Layer);
    checkNorms(norms);
    agree(
      group,
      () => wordsOfText(norms.map(described).join()),
      label,
      `Cannot ${ACTION} as all ranks must have the same batch norms, with the same settings, at the same places: ` +
        `current ones differ; this rank's are ${norms.map(described).join("; ")}`,
    );
    const presence = { counted: true };
    for (const placed of norms) synchronize(framework, placed, { kernels, group }, presence);
    return copy;
  } catch (error) {
    tell(group, error, label);
  }
}

/**
 * Makes a copy of a model whose batch norms are TensorFlow.js's own again.
 *
 * @param tf TensorFlow.js
 * @param model a model as of {@linkcode convertSyncBatchNorm}, or any; it is not changed, and its optimizer does not come
 * along
 * @returns the copy, with the same weights
 * @throws (rejects with) TypeError for what is no model with weights
 *
 * @example
 * ```ts ignore
 * import * as tf from "@tensorflow/tfjs";
 * import { revertSyncBatchNorm } from "@syncbn/syncbn/tfjs";
 *
 * const plain = await revertSyncBatchNorm(tf, model);
 * ```
 */
export async function revertSyncBatchNorm<M extends TfModel>(
  tf: TensorFlowLike,
  model: M,
): Promise<M> {
  const action = "revert the model";
  return await copied(tensorFlowOf(tf, action), model, action);
}

function checkNorms(norms: readonly PlacedNorm[]): void {
  for (const { norm } of norms) checkNorm(norm, ACTION);
  if (norms.length > 0) return;
  throw new TypeError(
    `Cannot ${ACTION} as it must have a BatchNormalization layer: current one has none; it needs no conversion, ` +
      `replicate alone trains it over a group`,
  );
}

function described({ norm, place }: PlacedNorm): string {
  const { axis, epsilon, momentum, movingMean } = norm;
  const affine = [norm.gamma && "gamma", norm.beta && "beta"].filter(Boolean).join(" ");
  return `${place} C=${movingMean.read().size} axis ${axis} epsilon ${epsilon} momentum ${momentum} ${affine}`;
}

/** A model of the same description, weights, and choice of what is trained. */
async function copied<M extends TfModel>(tf: TensorFlow, model: M, action: string): Promise<M> {
  checkModel(model, action);
  const weights = model.getWeights();
  for (const weight of weights) checkAlive(tf, weight, "each of its weights", action);
  const topology = model.toJSON(null, false) as object;
  const copy = await tf.models.modelFromJSON(topology).catch((cause) => {
    throw new TypeError(
      `Cannot ${action} as its layers must be ones that TensorFlow.js can make again: ${cause.message}; ` +
        `register own ones by tf.serialization.registerClass`,
      { cause },
    );
  });
  sameTrainable(model as unknown as Layer, copy as unknown as Layer);
  copy.setWeights(weights); // In an order that depends on what is trained.
  return copy as M;
}

/** Trains in the copy what is trained in the model: a config tells it of layers, not of models. */
function sameTrainable(from: Layer, to: Layer): void {
  const parts = partsOf(to);
  partsOf(from).forEach(([, part], i) => sameTrainable(part, parts[i][1]));
  if (to.trainable !== from.trainable) to.trainable = from.trainable;
}
