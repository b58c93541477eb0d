/**
 * A compiled model as one replica of a group: its own methods train and evaluate over all ranks.
 *
 * @module
 */

import { checkOptions } from "../../check_effects.ts";
import { shown } from "../../words.ts";
import { datasetEvaluationOver, evaluateOver, testLoopOver } from "./evaluation.ts";
import { fitsOver } from "./fit.ts";
import { fittedOf, normsIn, tensorFlowOf } from "./internals.ts";
import { agree, tell } from "./reduce.ts";
import { presenceOf } from "./synced_layer.ts";
import type { TensorFlow, TensorFlowLike, TfModel } from "./framework.ts";
import type { Layer, LayersModel } from "./model.ts";
import type { WhenOut } from "./uneven.ts";
import { checkReplicaGroup, type ReplicaGroup, weightWords } from "./weights.ts";

/** Options of {@linkcode replicate}. */
export interface ReplicateOptions {
  /**
   * What happens when some ranks have run out of batches and others have not: all ranks end with the same error
   * (`"stop"`, the default), or those go on with rows that do not count until all have (`"shadow"`).
   */
  readonly whenOut?: WhenOut;
}

const ACTION = "replicate the model";

/**
 * Makes a compiled model one replica of a group: its own `fit`, `fitDataset`, `trainOnBatch`, `evaluate` and
 * `evaluateDataset` compute loss, gradients and metrics of all ranks' rows, as one process would that holds them all.
 *
 * Exact for any rows per rank, none included, with `classWeight`, validation data, and regularisers, which count once, for
 * losses and metrics that are means over rows, as all of Keras's are but precision and recall. Per step: one collective for
 * the rows, two for each batch norm, one for all gradients, one for metrics. All ranks get the same bits, so callbacks that
 * look at them decide alike. `logs.size` is the rows of all ranks. Dropout and noise draw on each rank for itself: as
 * good, but not the numbers that one process draws.
 *
 * The model is changed in place, and stays so when it is compiled anew. All ranks call it, with equal weights.
 *
 * @param tf TensorFlow.js
 * @param model a compiled model, whose batch norms, if any, {@linkcode convertSyncBatchNorm} has synchronised
 * @param group the ranks, which must be able to hold up their threads: workers with `wait: "block"`, or MPI
 * @param options what happens when some ranks have run out of batches
 * @returns the model
 * @throws TypeError for a model that is not compiled, replicated already, or has a batch norm that is not synchronised, and
 * where the group cannot hold up this thread; CollectiveError, the same on every rank, where the ranks' weights differ or
 * a rank failed. Nothing is changed then
 *
 * @example
 * ```ts ignore
 * import { broadcastWeights, convertSyncBatchNorm, replicate, shareOf } from "@syncbn/syncbn/tfjs";
 *
 * const synced = await convertSyncBatchNorm(tf, model, group);
 * synced.compile({ optimizer: "adam", loss: "meanSquaredError" });
 * broadcastWeights(tf, synced, group);
 * const [xs, ys] = shareOf([x, y], 32, [8, 8, 8, 8], group.rank);
 * await replicate(tf, synced, group).fit(xs, ys, { batchSize: 8, epochs: 10 });
 * ```
 */
export function replicate<M extends TfModel>(
  tf: TensorFlowLike,
  model: M,
  group: ReplicaGroup,
  options: ReplicateOptions = {},
): M {
  const framework = tensorFlowOf(tf, ACTION);
  checkReplicaGroup(group, ACTION);
  const label = "tfjs replicate";
  const { whenOut = "stop" } = options ?? {};
  try {
    checkOptions(options, ["whenOut"], ACTION);
    checkWhenOut(whenOut);
    const fitted = fittedOf(model, ACTION);
    checkReplicable(model as unknown as Layer, fitted);
    const weights = model.getWeights();
    const length = weights.reduce((total, { size }) => total + size, 0);
    agree(
      group,
      () => weightWords(weights, length),
      `${label} ${weights.length} weights of ${length} values, ${whenOut}`,
      `Cannot ${ACTION} as its weights must have the same bits on all ranks: current ones differ; ` +
        `call broadcastWeights(tf, model, group) first`,
    );
    attach(framework, fitted, group, whenOut);
    if (fitted as unknown !== model) keepAttached(framework, model, group, whenOut);
    return model;
  } catch (error) {
    tell(group, error, label);
  }
}

function checkWhenOut(whenOut: WhenOut): void {
  if (whenOut === "stop" || whenOut === "shadow") return;
  throw new TypeError(
    `Cannot ${ACTION} as whenOut must be "stop" or "shadow": current value is ${shown(whenOut)}`,
  );
}

/** Under which a model holds that it is a replica: the same in all copies of the library. */
const REPLICA = Symbol.for("syncbn.tfjs.replica");

function checkReplicable(model: Layer, fitted: LayersModel): void {
  if (REPLICA in fitted) {
    throw new TypeError(
      `Cannot ${ACTION} as it must not be a replica yet: current one is; make another by convertSyncBatchNorm`,
    );
  }
  const plain = normsIn(model).find(({ norm }) => presenceOf(norm) === null);
  if (plain === undefined) return;
  throw new TypeError(
    `Cannot ${ACTION} as its batch norms must be synchronised: the one at ${plain.place} ("${plain.norm.name}") is not; ` +
      `call convertSyncBatchNorm(tf, model, group) first, with a group of one for statistics of each replica alone`,
  );
}

/** Gives a model methods of its own in the place of its class's. */
function attach(
  tf: TensorFlow,
  model: LayersModel,
  group: ReplicaGroup,
  whenOut: WhenOut,
): void {
  const presences = [
    ...new Set(normsIn(model).map(({ norm }) => presenceOf(norm)).filter((own) => own !== null)),
  ];
  const replica = Object.freeze({ tf, model, group, presences });
  const { fit, fitDataset, trainOnBatch, makeTrainFunction } = model;
  const { testLoop, evaluate, evaluateDataset, makeTestFunction } = model;
  const methods = {
    ...fitsOver(replica, { fit, fitDataset, trainOnBatch, makeTrainFunction }, whenOut),
    ...datasetEvaluationOver(replica, evaluateDataset, makeTestFunction),
    evaluate: evaluateOver(replica, evaluate),
    testLoop: testLoopOver(replica, testLoop),
  };
  for (const [name, value] of Object.entries(methods)) {
    Object.defineProperty(model, name, { value, configurable: true, writable: true });
  }
  Object.defineProperty(model, REPLICA, { value: true });
}

/** A sequential model makes the model within anew whenever it is compiled. */
function keepAttached(
  tf: TensorFlow,
  model: TfModel,
  group: ReplicaGroup,
  whenOut: WhenOut,
): void {
  const compile = model.compile.bind(model);
  const value = (options: never): void => {
    compile(options);
    attach(tf, fittedOf(model, ACTION), group, whenOut);
  };
  Object.defineProperty(model, "compile", { value, configurable: true, writable: true });
}
