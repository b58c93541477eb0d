/**
 * `fit`, `fitDataset` and `trainOnBatch` of a replica: tfjs's own loops, whose steps are of all ranks.
 *
 * Ranks agree on the number of batches before the first one, or batch by batch where a data set tells no number; a rank that
 * leaves its loop early, or fails in a callback, meets the others by a call that they do not make, so that all get an error
 * at once and none waits.
 *
 * @module
 */

import { sum } from "../../moments.ts";
import { batchesOf, checkData, checkWeights, tensorsOf, zerosLike } from "./data.ts";
import { reduced, tell } from "./reduce.ts";
import { type BatchData, type Replica, step, type StepResult } from "./step.ts";
import type { TensorFlow } from "./framework.ts";
import type { FitOptions, LayersModel } from "./model.ts";
import { checkEven, gathered, joined, type WhenOut } from "./uneven.ts";
import type { ReplicaGroup } from "./weights.ts";

/** How far a loop is. */
interface Loop {
  /** What callbacks are told of the batch that is under way. */
  logs: { size?: number } | null;
  /** Whether the rows of its batches count. */
  readonly counted: boolean;
  /** Batches of an epoch, after which other ranks have so many more; null where nobody knows. */
  readonly batches: number | null;
  readonly extra: number;
  /** Batches of this epoch that are done. */
  done: number;
}

type Fits = Pick<LayersModel, "fit" | "fitDataset" | "trainOnBatch" | "makeTrainFunction">;

/** The methods of a replica that train it, over all ranks. */
export function fitsOver(replica: Replica, own: Fits, whenOut: WhenOut): Fits {
  const { tf, model, group } = replica;
  let loop: Loop | null = null;
  let last: BatchData | null = null;

  const inLoop = async <R>(begun: Loop, label: string, body: () => Promise<R>): Promise<R> => {
    loop = begun;
    try {
      const result = await body();
      reduced(group, () => new Float64Array(1), sum, `${label} has ended`);
      return result;
    } catch (error) {
      tell(group, error, `${label} has failed`);
    } finally {
      loop = null;
    }
  };

  return {
    makeTrainFunction: () => {
      const train = own.makeTrainFunction.call(model);
      return (data) => {
        last = data;
        const results = [step(replica, train, data, loop?.counted ?? true)];
        if (loop && ++loop.done === loop.batches) {
          loop.done = 0;
          for (let i = 0; i < loop.extra; i++) results.push(step(replica, train, data, false));
        }
        const { values, rows } = averaged(tf, results);
        if (loop?.logs) loop.logs.size = rows;
        return values;
      };
    },
    fit: async (x, y, options = {}) => {
      const label = `tfjs fit of ${options.epochs ?? 1} epochs`;
      const begun = planned(batchesOf(x, options), group, whenOut, label);
      return await inLoop(begun, label, async () => {
        checkWeights(options, "fit the model");
        checkData(tf, [x, y]);
        if (begun.counted) return await own.fit.call(model, x, y, watched(options, begun));
        const [inputs, targets] = [x, y].map((data) => zerosLike(tf, data));
        try {
          const { classWeight: _, validationSplit: __, ...rest } = options;
          return await own.fit.call(model, inputs, targets, watched(rest, begun));
        } finally {
          tf.dispose([inputs, targets].flatMap(tensorsOf));
        }
      });
    },
    fitDataset: async (dataset, options) => {
      const label = `tfjs fitDataset of ${options?.epochs} epochs`;
      const begun: Loop = { logs: null, counted: true, batches: null, extra: 0, done: 0 };
      const none = () => {
        if (last === null) throw unseen();
        const rows = last.map((like) => like && tf.zeros([0, ...like.shape.slice(1)], like.dtype));
        const inputs = model.inputs.length;
        return { xs: rows.slice(0, inputs), ys: rows.slice(inputs, inputs + model.outputs.length) };
      };
      const source = joined(dataset, group, whenOut, none);
      return await inLoop(begun, label, async () => {
        checkWeights(options, "fit the model");
        return await own.fitDataset.call(model, source, watched(options, begun));
      });
    },
    trainOnBatch: async (x, y) => {
      try {
        checkData(tf, [x, y]);
        return await own.trainOnBatch.call(model, x, y);
      } catch (error) {
        tell(group, error, "tfjs trainOnBatch has failed");
      }
    },
  };
}

/**
 * What a loop is to go through, once all ranks know of all. One without any batch goes through one of a row that does not
 * count.
 */
function planned(own: number, group: ReplicaGroup, whenOut: WhenOut, label: string): Loop {
  const all = gathered(group, own, label);
  checkEven(all, whenOut);
  const batches = Math.max(own, 1);
  const extra = Math.max(...all) - batches;
  return { logs: null, counted: own > 0, batches, extra, done: 0 };
}

/** The loss and metrics of several steps as those of one, of all their rows. */
function averaged(tf: TensorFlow, results: readonly StepResult[]): StepResult {
  if (results.length === 1) return results[0];
  const rows = results.reduce((total, { rows }) => total + rows, 0);
  const mean = (i: number) =>
    results.reduce((total, { values, rows }) => total + values[i].dataSync()[0] * rows, 0) / rows;
  const values = results[0].values.map((_, i) => tf.tensor([mean(i)], []));
  for (const { values } of results) tf.dispose(values);
  return { values, rows };
}

/** Options with one more callback, which learns what the others are told of each batch. */
function watched(options: FitOptions, loop: Loop): FitOptions {
  const { callbacks } = options ?? {};
  const list = callbacks === undefined || callbacks === null
    ? []
    : Array.isArray(callbacks)
    ? callbacks
    : [callbacks];
  const onBatchBegin = (_: number, logs: Loop["logs"]): void => {
    loop.logs = logs;
  };
  const isClass = typeof (list[0] as { setParams?: unknown } | undefined)?.setParams === "function";
  return {
    ...options,
    callbacks: [...list, isClass ? callbackOf(onBatchBegin) : { onBatchBegin }],
  };
}

/** A callback as those are that are objects of a class. */
function callbackOf(onBatchBegin: (batch: number, logs: Loop["logs"]) => void): object {
  const nothing = () => {};
  return {
    ...{ setParams: nothing, setModel: nothing, onTrainBegin: nothing, onTrainEnd: nothing },
    ...{ onEpochBegin: nothing, onEpochEnd: nothing, onBatchEnd: nothing, onBatchBegin },
  };
}

function unseen(): TypeError {
  return new TypeError(
    `Cannot fit the model as a rank that runs out must know what a batch is like: current one had none; ` +
      `begin its data set by a batch of no rows, of shape (0, ...)`,
  );
}
