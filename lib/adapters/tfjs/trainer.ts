/**
 * Training over ranks that await each other, and on a GPU that tfjs and a device share.
 *
 * @module
 */

import { checkDevice, checkGroup, checkOptions, checkSignal, signalIn } from "../../check_effects.ts";
import type { CollectiveOptions, ReduceGroup } from "../../collectives.ts";
import type { Device } from "../../device.ts";
import { bridgeBetween } from "./bridge.ts";
import { anatomy, checkInternals } from "./internals.ts";
import { holdMeetings, meet, summed, type Work } from "./meetings.ts";
import { emptyPart, type Found, labelsOf, ownPart, type Training } from "./part.ts";
import { programOf } from "./program.ts";
import type { LayersModel, TensorFlow, TfTensor } from "./types.ts";
import { update } from "./update.ts";

/** What a trainer is made with. */
export interface TrainerOptions<A> {
  /** The ranks: any group, since each collective is awaited. */
  readonly group: ReduceGroup;
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
}

const ACTION = "make the trainer";

export function createTrainer<A>(
  tf: TensorFlow,
  model: LayersModel,
  options: TrainerOptions<A>,
): Trainer {
  checkInternals(tf, ACTION);
  checkOptions(options, ["group", "device", "loss", "optimizer", "metrics"], ACTION);
  const { group, device, loss, optimizer, metrics } = options;
  checkDevice({ device }, ACTION);
  checkGroup(group, {}, ACTION, { name: "group" });
  const fitted = model.model ?? model;
  if (loss !== undefined || optimizer !== undefined) model.compile({ loss, optimizer, metrics });
  const training: Training<A> = Object.freeze({
    ...{ tf, model: fitted, device, program: programOf(fitted, anatomy) },
    parameters: fitted.collectedTrainableWeights.map((weight) => weight.read()),
    bridge: bridgeBetween(tf, device, ACTION),
  });
  const labels = ["rows", ...labelsOf(training.program)];
  const names = fitted.metricsNames.slice(1);
  let busy = false;

  const step: Trainer["step"] = async (xs, ys, options = {}) => {
    if (busy) throw inStep();
    busy = true;
    try {
      const work = stepWork(training, xs, ys, names, options);
      return await holdMeetings(work, labels, group, signalIn(options));
    } finally {
      busy = false;
    }
  };
  return Object.freeze<Trainer>({ step });
}

/** A step from a rank's own batch to what all ranks found. */
async function* stepWork<A>(
  training: Training<A>,
  xs: TrainerData,
  ys: TrainerData,
  names: readonly string[],
  options: Pick<CollectiveOptions, "signal">,
): Work<TrainerStep> {
  checkOptions(options, ["signal"], "train the model");
  checkSignal(options.signal, "train the model");
  const { tf, model } = training;
  const [inputs, targets] = model.standardizeUserDataXY(xs, ys);
  try {
    const own = inputs[0].shape[0];
    const [rows] = yield* meet(summed(Float64Array.of(own)));
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

function inStep(): TypeError {
  return new TypeError(
    "Cannot begin a step as the one before must have ended: await each step of a trainer",
  );
}
