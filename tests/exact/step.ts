/** A training step and an evaluation of some samples of a batch, and all of its bits. */

import * as bn from "../../mod.ts";
import { permute } from "../oracle.ts";
import {
  dataOf,
  type ExactBatch,
  innerOf,
  type Partition,
  stateOf,
  weightsOf,
} from "./scenario.ts";

/** Bits of the results; those of tensors by the number of their sample. */
export interface StepBits {
  readonly tensors: Readonly<
    Record<
      "y" | "dx" | "dresidual" | "moved" | "evaluated" | "evaluatedDx",
      readonly (readonly [number, string])[]
    >
  >;
  readonly vectors: Readonly<Record<string, string>>;
}

/** Bits of numbers as text; all NaN are one. */
export function bitsOf(values: ArrayLike<number>): string {
  const words = new Uint32Array(Float32Array.from(values).buffer);
  for (let i = 0; i < words.length; i++) {
    if ((words[i] & 0x7fffffff) > 0x7f800000) words[i] = 0x7fc00000;
  }
  return words.join(" ");
}

/** Trains on some samples of a batch, alone or with a group. */
export async function exactStep<A>(
  device: bn.Device<A>,
  batch: ExactBatch,
  rows: readonly number[],
  { format, gradFormat }: Pick<Partition, "format" | "gradFormat">,
  group?: bn.ProcessGroup,
  blocking = false,
): Promise<StepBits> {
  const { channels, spatial, dtype, relu } = batch;
  const inner = innerOf(batch);
  const data = dataOf(batch);
  const sample = channels * inner;
  const make = (scope: bn.Device<A>, values: Float32Array, order: bn.Format) => {
    const own = new Float32Array(rows.length * sample);
    rows.forEach((row, i) =>
      own.set(values.subarray(row * sample, (row + 1) * sample), i * sample)
    );
    const laid = order === "channelsLast" ? permute(own, { channels, inner }, order) : own;
    return bn.tensor(scope, laid, [rows.length, channels, ...spatial], { dtype, format: order });
  };
  const read = async (tensor: bn.Tensor<A> | undefined) => {
    if (tensor === undefined) return [];
    const values = await bn.toArray(device, tensor);
    const own = tensor.format === "channelsLast"
      ? permute(values, { channels, inner }, "channelsFirst")
      : values;
    return rows.map((row, i) => [row, bitsOf(own.subarray(i * sample, (i + 1) * sample))] as const);
  };
  return await bn.region(device, async (scope) => {
    const state = bn.stateFromHost(scope, stateOf(batch));
    const [x, dy] = [make(scope, data.x, format), make(scope, data.dy, gradFormat)];
    const plain = {
      ...(relu && { activation: "relu" as const }),
      ...(batch.residual && { residual: make(scope, data.residual, gradFormat) }),
    };
    const options = { ...plain, ...weightsIn(scope, batch, rows) };
    // The state's own vectors do for directions.
    const along = {
      input: make(scope, data.along, gradFormat),
      ...(state.weight && { weight: state.runningMean, bias: state.weight }),
      ...(batch.residual && { residual: dy }),
    };
    const effects = { device: scope, group: group! };
    let forward: Pick<bn.GroupForward<A>, "output" | "state">;
    let backward: bn.Backward<A>;
    let moved: bn.Tensor<A>;
    if (!group) {
      const own = bn.batchNormForward(state, x, { device: scope }, options);
      [forward, backward] = [own, bn.batchNormBackward(own.saved, dy, { device: scope })];
      moved = bn.batchNormJvp(own.saved, along, { device: scope });
    } else if (blocking) {
      const own = bn.syncBatchNormForwardBlocking(state, x, effects, options);
      [forward, backward] = [own, bn.syncBatchNormBackwardBlocking(own.saved, dy, effects)];
      moved = bn.syncBatchNormJvpBlocking(own.saved, along, effects);
    } else {
      const own = await bn.syncBatchNormForward(state, x, effects, options);
      [forward, backward] = [own, await bn.syncBatchNormBackward(own.saved, dy, effects)];
      moved = await bn.syncBatchNormJvp(own.saved, along, effects);
    }
    const evaluated = bn.batchNormInfer(forward.state, x, { device: scope }, plain);
    const back = bn.batchNormInferBackward(forward.state, x, dy, { device: scope }, plain);
    const after = await bn.stateToHost(scope, forward.state);
    const vector = async (array: A | null) => array ? bitsOf(await scope.download(array)) : "none";
    return {
      tensors: {
        y: await read(forward.output),
        dx: await read(backward.gradInput),
        dresidual: await read(backward.gradResidual),
        moved: await read(moved),
        evaluated: await read(evaluated),
        evaluatedDx: await read(back.gradInput),
      },
      vectors: {
        gradWeight: await vector(backward.group!.gradWeight),
        gradBias: await vector(backward.group!.gradBias),
        runningMean: bitsOf(after.runningMean!),
        runningVar: bitsOf(after.runningVar!),
        numBatchesTracked: String(after.numBatchesTracked),
      },
    };
  });
}

/** The weights of some samples of a batch, as forward takes them. */
function weightsIn<A>(
  device: bn.Device<A>,
  batch: ExactBatch,
  rows: readonly number[],
): bn.WeightOptions<A> {
  const given = weightsOf(batch);
  if (given === null) return {};
  if ("lengths" in given) return { lengths: Int32Array.from(rows, (row) => given.lengths[row]) };
  const { each, values } = given;
  const own = rows.flatMap((row) => [...values.subarray(row * each, (row + 1) * each)]);
  const shape = batch.perSample ? [rows.length, 1] : [rows.length, 1, ...batch.spatial];
  const isSmall = batch.weights !== "large" && batch.dtype === "float16";
  return { weights: bn.tensor(device, own, shape, { dtype: isSmall ? "float16" : "float32" }) };
}
