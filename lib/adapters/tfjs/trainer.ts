/**
 * Training over ranks that await each other at every batch norm, on any thread, and on a GPU that tfjs and a device share.
 *
 * @module
 */

import {
  checkDevice,
  checkGroup,
  checkOptions,
  checkSignal,
  signalIn,
} from "../../check_effects.ts";
import type { CollectiveOptions, ProcessGroup, ReduceGroup } from "../../collectives.ts";
import type { Device } from "../../device.ts";
import { bridgeBetween } from "./bridge.ts";
import { checkAlive, checkModel, fittedOf, graphOf, tensorFlowOf } from "./internals.ts";
import { shown } from "../../words.ts";
import { holdMeetings, meet, summed, type Work } from "./meetings.ts";
import { emptyPart } from "./empty_part.ts";
import { ownPart } from "./own_part.ts";
import { type Found, labelsOf, type Training } from "./part.ts";
import { programOf } from "./program.ts";
import { areAlike, handOnWeights, likenessOf } from "./replicas.ts";
import type { TensorFlowLike, TfModel, TfTensor } from "./framework.ts";
import type { Layer } from "./model.ts";
import { update } from "./update.ts";

/** Ranks of a trainer; what needs the number of this one says so. */
export interface TrainerGroup extends ReduceGroup, Partial<Pick<ProcessGroup, "rank">> {}

/** What a trainer is made with. */
export interface TrainerOptions<A> {
  /** The ranks: any group, since each collective is awaited. */
  readonly group: TrainerGroup;
  /**
   * Computes the batch norms. On tfjs's webgpu backend one on the same GPUDevice shares its memory, made with
   * `{ exactBuffers: true }`; every other pair copies through the host.
   */
  readonly device: Device<A>;
  /** As `model.compile` takes it; what the model was compiled with by default. */
  readonly loss?: unknown;
  /** As `model.compile` takes it; what the model was compiled with by default. */
  readonly optimizer?: unknown;
  /** As `model.compile` takes it, beside a loss and an optimizer. */
  readonly metrics?: unknown;
}

/** Tensors of a batch as `trainOnBatch` takes them: one, a list, or a record by names. */
export type TrainerData = TfTensor | readonly TfTensor[] | Readonly<Record<string, TfTensor>>;

/** What came of a step, the same bits on all ranks. */
export interface TrainerStep {
  /** Loss over the rows of all ranks, with the penalties of regularisers, before the parameters changed. */
  readonly loss: number;
  /** Metrics over the rows of all ranks, by the model's names of them. */
  readonly metrics: Readonly<Record<string, number>>;
  /** Rows of all ranks. */
  readonly rows: number;
}

/** Trains one rank's replica of a model. */
export interface Trainer {
  /**
   * Does a step on this rank's rows; every rank must call it, with a batch of no rows where it has none.
   */
  readonly step: (
    xs: TrainerData,
    ys: TrainerData,
    options?: Pick<CollectiveOptions, "signal">,
  ) => Promise<TrainerStep>;
  /**
   * Gives all ranks the weights of one, 0 by default, moving statistics too; every rank must call it. Replicas that are not
   * alike are an error of their first step.
   */
  readonly broadcastWeights: (root?: number) => Promise<void>;
}

const ACTION = "make the trainer";

/**
 * Makes a trainer of a model: it calls the layers as `fit` does, and awaits the group at every batch norm.
 *
 * A step computes the loss, the gradients and the metrics of the rows of all ranks, however they are cut: uneven ones, a
 * rank without any. Batch norms normalize with the statistics of all rows; moving statistics follow in Keras's convention
 * (biased variance, momentum = decay); gradients are added up in one collective, and the model's optimizer, which is tfjs's own,
 * changes every replica by the same bits. The model itself stays as it is: `predict`, `evaluate` and `save` know nothing of
 * a trainer.
 *
 * Sequential, functional and nested models, shared layers, masks, and TimeDistributed, whose batch norms meet once for each
 * step of time. Losses and metrics must be means over rows, as Keras's
 * are. Dropout draws on each rank for itself.
 *
 * @param tf TensorFlow.js 4.22, `import * as tf from "@tensorflow/tfjs"`
 * @param model this rank's replica, with weights; compiled, unless `loss` and `optimizer` are given
 * @param options the ranks, the device of the batch norms, and what to compile the model with
 * @returns a frozen trainer, which holds nothing that is to be freed
 * @throws TypeError for a model without a batch norm, with one in a layer that calls it itself (a Bidirectional, say), without
 * weights or not compiled; for a WebGPU device that is not on the GPUDevice of tfjs's webgpu backend, or made without
 * `exactBuffers`; for another TensorFlow.js than this was written for. Nothing is compiled then. Its steps reject with a
 * CollectiveError on every rank, the same, where a rank failed before the last collective (`cause`), where replicas differ at
 * the first step, or where no rank has rows; the model is then as it was before
 *
 * @example
 * ```ts ignore
 * import { createTrainer } from "@syncbn/syncbn/tfjs";
 * import { webgpuDevice } from "@syncbn/syncbn/webgpu";
 *
 * await tf.setBackend("webgpu");
 * using device = webgpuDevice(tf.backend().device, { exactBuffers: true });
 * const trainer = createTrainer(tf, model, { group, device, loss: "meanSquaredError", optimizer: "adam" });
 * await trainer.broadcastWeights();
 * for (const [xs, ys] of batches) console.log((await trainer.step(xs, ys)).loss);
 * ```
 */
export function createTrainer<A>(
  tf: TensorFlowLike,
  model: TfModel,
  options: TrainerOptions<A>,
): Trainer {
  const checked = tensorFlowOf(tf, ACTION);
  checkOptions(options, ["group", "device", "loss", "optimizer", "metrics"], ACTION);
  const { group, device } = options;
  checkDevice({ device }, ACTION);
  checkGroup(group, {}, ACTION, { name: "options.group" });
  const bridge = bridgeBetween(checked, device, ACTION);
  checkModel(model, ACTION);
  const compiles = isCompiling(options);
  const graph = graphOf(model as unknown as Layer)!;
  const weights = compiles
    ? graph.trainableWeights
    : fittedOf(model, ACTION).collectedTrainableWeights;
  // Before the model is compiled: what cannot be trained stays as it is.
  const program = programOf(checked, graph, weights, ACTION);
  if (compiles) {
    const { loss, optimizer, metrics } = options;
    model.compile({ loss, optimizer, metrics } as never);
  }
  const fitted = fittedOf(model, ACTION);
  const training: Training<A> = Object.freeze({
    ...{ tf: checked, model: fitted, device, bridge, program },
    parameters: weights.map((weight) => weight.read()),
  });
  const labels = ["rows", ...labelsOf(training.program)];
  const names = fitted.getDedupedMetricsNames().slice(1);
  let busy = false;

  let alike = group.worldSize === 1;

  const alone = async <T>(body: () => Promise<T>): Promise<T> => {
    if (busy) throw stillBusy();
    busy = true;
    try {
      return await body();
    } finally {
      busy = false;
    }
  };
  return Object.freeze<Trainer>({
    step: (xs, ys, options = {}) =>
      alone(async () => {
        const work = stepWork(training, {
          ...{ xs, ys, names, options, compare: !alike },
          worldSize: group.worldSize,
        });
        const made = await holdMeetings(work, labels, group, signalIn(options));
        alike = true;
        return made;
      }),
    broadcastWeights: (root = 0) =>
      alone(async () => {
        const work = handOnWeights(checked, fitted, () => isRoot(group, root));
        await holdMeetings(work, [`weights of rank ${root}`], group, undefined);
      }),
  });
}

/** Whether this rank is the one that gives its weights. */
function isRoot({ rank, worldSize }: TrainerGroup, root: number): boolean {
  const action = "broadcast the weights";
  if (!Number.isInteger(root) || root < 0 || root >= worldSize) {
    throw new RangeError(
      `Cannot ${action} as root must be a rank below ${worldSize}: current value is ${shown(root)}`,
    );
  }
  if (worldSize === 1 || Number.isInteger(rank)) return worldSize === 1 || rank === root;
  throw new TypeError(
    `Cannot ${action} as the group must know this rank's number: current value of rank is ${
      shown(rank)
    }`,
  );
}

/** Whether there is something to compile a model with: a loss and an optimizer, or neither. */
function isCompiling(
  { loss, optimizer, metrics }: Pick<TrainerOptions<unknown>, "loss" | "optimizer" | "metrics">,
): boolean {
  const given = [loss, optimizer].filter((option) => option !== undefined).length;
  if (given === 2 || (given === 0 && metrics === undefined)) return given === 2;
  throw new TypeError(
    `Cannot ${ACTION} as loss and optimizer go together, metrics with them: current options have ${
      Object.entries({ loss, optimizer, metrics }).filter(([, option]) => option !== undefined)
        .map(([name]) => name)
    } alone; give both, or compile the model and give none`,
  );
}

/** A step, from a rank's own batch to what all ranks found. */
async function* stepWork<A>(
  training: Training<A>,
  { xs, ys, names, options, compare, worldSize }: {
    readonly xs: TrainerData;
    readonly ys: TrainerData;
    readonly names: readonly string[];
    readonly options: Pick<CollectiveOptions, "signal">;
    /** Whether it is to be proved that all ranks have the same weights, and of how many ranks. */
    readonly compare: boolean;
    readonly worldSize: number;
  },
): Work<TrainerStep> {
  const action = "train the model";
  checkOptions(options, ["signal"], action);
  checkSignal(options.signal, action);
  const { tf, model } = training;
  const [inputs, targets] = model.standardizeUserDataXY(xs, ys);
  try {
    for (const tensor of [...inputs, ...targets]) checkAlive(tf, tensor, "a batch", action);
    const own = inputs[0].shape[0];
    const likeness = compare ? await likenessOf(model) : [];
    const [rows, ...sums] = yield* meet(summed(Float64Array.of(own, ...likeness)));
    if (!areAlike(sums, worldSize)) throw unlike(action);
    if (rows === 0) throw noRows(action);
    const use = (found: Found<A>) => update(training, found);
    const totals = yield* own > 0
      ? ownPart(training, { xs: inputs, ys: targets, share: own / rows }, use)
      : emptyPart(training, use);
    const metrics = Object.fromEntries(names.map((name, i) => [name, totals[1 + i]]));
    return Object.freeze({ loss: totals[0], metrics: Object.freeze(metrics), rows });
  } finally {
    const given = new Set([xs, ys].flatMap(tensorsOf));
    tf.dispose([...inputs, ...targets].filter((tensor) => !given.has(tensor)));
  }
}

function tensorsOf(data: TrainerData): readonly TfTensor[] {
  if (Array.isArray(data)) return data;
  return "dataId" in data ? [data as TfTensor] : Object.values(data);
}

function stillBusy(): TypeError {
  return new TypeError(
    "Cannot use the trainer as what it does must have ended: await each of its steps before the next",
  );
}

function noRows(action: string): RangeError {
  return new RangeError(
    `Cannot ${action} as some rank must have rows: current batch has none on any; end the loop there`,
  );
}

function unlike(action: string): RangeError {
  return new RangeError(
    `Cannot ${action} as all ranks must begin with the same weights: current ones differ; ` +
      `await trainer.broadcastWeights() on every rank first`,
  );
}
