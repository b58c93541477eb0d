/**
 * Evaluation over all ranks: each judges the model by its own rows, none or many, and one collective makes of it what one
 * process finds on all of them.
 *
 * @module
 */

import { sum } from "../../moments.ts";
import { checkWeights } from "./data.ts";
import { reduced, tell } from "./reduce.ts";
import type { Replica } from "./step.ts";
import type { TfTensor } from "./framework.ts";
import type { BatchFunction, LayersModel } from "./model.ts";

const EVALUATE = "tfjs evaluate";

type TestLoop = LayersModel["testLoop"];
type EvaluateDataset = LayersModel["evaluateDataset"];

/** `evaluate` of a replica: TensorFlow.js's own, which says nothing of weights of rows, but has no use for them. */
export function evaluateOver(
  { model, group }: Replica,
  own: LayersModel["evaluate"],
): LayersModel["evaluate"] {
  return (x, y, options) => {
    try {
      checkWeights(options, "evaluate the model");
    } catch (error) {
      tell(group, error, EVALUATE);
    }
    return own.call(model, x, y, options);
  };
}

/** `testLoop`, by which tensors are evaluated, over all ranks. */
export function testLoopOver({ tf, model, group }: Replica, own: TestLoop): TestLoop {
  return (judge, data, ...rest) => {
    const count = judged(model);
    const local = () => {
      const rows = data[0]?.shape[0] ?? 0;
      const found = rows > 0 ? own.call(model, judge, data, ...rest) : [];
      const wire = wireOf(rows, found, count);
      tf.dispose(found);
      return wire;
    };
    return valuesOf(reduced(group, local, sum, EVALUATE)).map((value) => tf.tensor([value], []));
  };
}

/** `evaluateDataset` over all ranks, and `makeTestFunction`, whose function says how many rows were judged. */
export function datasetEvaluationOver(
  { tf, model, group }: Replica,
  own: EvaluateDataset,
  makeTestFunction: () => void,
): { readonly evaluateDataset: EvaluateDataset; readonly makeTestFunction: () => void } {
  let rows = 0;
  return {
    makeTestFunction: () => {
      makeTestFunction.call(model);
      const judge = model.testFunction as BatchFunction;
      model.testFunction = (data) => {
        const own = data[0]?.shape[0] ?? 0;
        rows += own;
        if (own > 0) return judge(data);
        return Array.from({ length: judged(model) }, () => tf.tensor([0], []));
      };
    },
    evaluateDataset: async (dataset, options) => {
      const label = "tfjs evaluateDataset";
      rows = 0;
      const found = await own.call(model, dataset, options).catch((error) =>
        tell(group, error, label)
      );
      const list = Array.isArray(found) ? found : [found];
      const local = () => wireOf(rows, rows > 0 ? list : [], judged(model));
      const values = valuesOf(reduced(group, local, sum, label)).map((value) =>
        tf.tensor([value], [])
      );
      tf.dispose(list);
      return values.length === 1 ? values[0] : values;
    },
  };
}

/** How many numbers a model is judged by. */
function judged({ lossFunctions, metricsTensors }: LayersModel): number {
  return lossFunctions.length + metricsTensors.length;
}

/** [rows, sum over rows of each number]. */
function wireOf(rows: number, found: readonly TfTensor[], count: number): Float64Array {
  const wire = new Float64Array(1 + count);
  wire[0] = rows;
  found.forEach((value, i) => wire[1 + i] = rows * value.dataSync()[0]);
  return wire;
}

function valuesOf([rows, ...sums]: Float64Array): readonly number[] {
  return sums.map((value) => value / rows);
}
