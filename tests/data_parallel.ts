/** What the suites of data parallelism share: a training run, failures of all ranks, odd numbers. */

import assert from "node:assert/strict";
import {
  addScaled,
  allReduceGradients,
  assertReplicated,
  batchNormBackward,
  batchNormForward,
  CollectiveError,
  type Device,
  initBatchNorm,
  joinUneven,
  lossScale,
  type ProcessGroup,
  referenceDevice,
  region,
  stateToHost,
  sum,
  syncBatchNormBackward,
  syncBatchNormForward,
  tensor,
  toArray,
  withParameters,
} from "../mod.ts";
import { assertClose, EPSILON } from "./kit.ts";
import { normalArray } from "./random.ts";

/** What a rank's call came to: a failure as plain data. */
export interface Failure {
  readonly name: string;
  readonly message: string;
  readonly code?: string;
  readonly ranks?: readonly number[];
}

/** The failure that a call comes to. */
export async function failureOf(promise: Promise<unknown>): Promise<Failure> {
  try {
    await promise;
  } catch (error) {
    const { name, message } = error as Error;
    if (!(error instanceof CollectiveError)) return { name, message };
    return { name, message, code: error.code, ranks: error.ranks };
  }
  throw new Error("the call succeeded");
}

/** The failure that all ranks must have in common, and that their group is of use afterwards. */
export async function failureOnAll(group: ProcessGroup, call: Promise<unknown>): Promise<Failure> {
  const failure = await failureOf(call);
  const [ranks] = await group.allReduce(Float64Array.of(1), sum, { label: "afterwards" });
  assert.equal(ranks, group.worldSize);
  return failure;
}

/** What all ranks must have in common. */
export function same<T>(results: readonly T[]): T {
  for (const result of results) assert.deepEqual(result, results[0], "equal on every rank");
  return results[0];
}

/** 0 up to length - 1. */
export const range = (length: number) => Array.from({ length }, (_, i) => i);

/** Rows of two inputs and three targets, dealt out to ranks step by step; -1 where a rank has no batch any more. */
export interface Training {
  readonly counts: readonly (readonly number[])[];
}

/**
 * Trains x -> BatchNorm(x * matrix) on the mean of squared errors by averaged gradients.
 *
 * @returns matrix, weight, bias and running statistics after every step
 */
export async function train<A>(
  device: Device<A>,
  { counts }: Training,
  group?: ProcessGroup,
): Promise<number[][]> {
  const parts = counts.map((step) => {
    const sizes = step.map((count) => Math.max(0, count));
    const start = sizes.slice(0, group?.rank ?? 0).reduce((a, b) => a + b, 0);
    const rows = group ? sizes[group.rank] : sizes.reduce((a, b) => a + b, 0);
    return { start, rows, gone: group !== undefined && step[group.rank] < 0 };
  });
  const own = parts.filter(({ gone }) => !gone);
  const empty = { start: 0, rows: 0, gone: true };
  const steps = group
    ? joinUneven(own, group, { whenOut: "shadow", emptyBatch: () => empty })
    : joinUneven(own, { worldSize: 1, allGather: () => Promise.reject(new Error("alone")) });
  const [inputs, targets] = [normalArray(2 * 64, 1), normalArray(3 * 64, 2)];
  return await region(device, async (scope) => {
    let matrix = scope.upload(normalArray(6, 3));
    let state = initBatchNorm(scope, 3);
    const snapshots: number[][] = [];
    let index = 0;
    for await (const { batch: { start, rows }, active } of steps) {
      assert.equal(active, group ? counts[index].filter((count) => count >= 0).length : 1);
      index++;
      const x = inputs.subarray(2 * start, 2 * (start + rows));
      const t = targets.subarray(3 * start, 3 * (start + rows));
      const w = await scope.download(matrix);
      const hidden = range(3 * rows).map((at) => {
        const [row, column] = [Math.floor(at / 3), at % 3];
        return x[2 * row] * w[column] + x[2 * row + 1] * w[3 + column];
      });
      const input = tensor(scope, hidden, [rows, 3]);
      const scale = group ? await lossScale(rows, group) : 1;
      const errors = (y: Float32Array) =>
        tensor(scope, y.map((value, i) => scale * 2 * (value - t[i]) / (3 * rows)), [rows, 3]);
      let back;
      if (group) {
        const effects = { device: scope, group };
        const forward = await syncBatchNormForward(state, input, effects);
        const dy = errors(await toArray(scope, forward.output));
        back = await syncBatchNormBackward(forward.saved, dy, effects);
        state = forward.state;
      } else {
        const forward = batchNormForward(state, input, { device: scope });
        const dy = errors(await toArray(scope, forward.output));
        back = batchNormBackward(forward.saved, dy, { device: scope });
        state = forward.state;
      }
      const dx = await toArray(scope, back.gradInput);
      const { gradWeight, gradBias } = back;
      const gradMatrix = range(6).map((at) => {
        const [k, column] = [Math.floor(at / 3), at % 3];
        return range(rows).reduce((total, row) => total + x[2 * row + k] * dx[3 * row + column], 0);
      });
      const local = {
        linear: tensor(scope, gradMatrix, [2, 3]),
        norm: { gradWeight, gradBias },
        frozen: null,
      };
      const { linear, norm } = group
        ? await allReduceGradients(local, { device: scope, group })
        : local;
      assert(state.weight && state.bias && norm.gradWeight && norm.gradBias);
      matrix = addScaled(scope, matrix, linear.data, -0.1);
      state = withParameters(state, {
        weight: addScaled(scope, state.weight, norm.gradWeight, -0.1),
        bias: addScaled(scope, state.bias, norm.gradBias, -0.1),
      });
      if (group) await assertReplicated({ matrix, state }, { device: scope, group });
      const { weight, bias, runningMean, runningVar } = await stateToHost(scope, state);
      const vectors = [await scope.download(matrix), weight, bias, runningMean, runningVar];
      snapshots.push(vectors.flatMap((vector) => [...vector ?? []]));
    }
    return snapshots;
  });
}

/** Uneven, empty and used-up ranks. */
export const TRAINING: Training = {
  counts: [[4, 1, 7], [0, 3, 5], [2, 2, 2], [1, 0, 6], [5, -1, 3], [0, -1, 9], [-1, -1, 4]],
};

/** Checks what all ranks have trained against one process on the reference device. */
export async function checkTraining(ulps: number, ranks: readonly number[][][]): Promise<void> {
  const alone = await train(referenceDevice(), TRAINING);
  const together = same(ranks);
  assert.equal(together.length, TRAINING.counts.length);
  // A step's rounding goes into all later ones, each of which may multiply it by a few.
  const relative = 64 * ulps * EPSILON.float32;
  together.forEach((step, i) =>
    assertClose(step, alone[i], { relative, absolute: relative }, `step ${i}`)
  );
}

/** Float32 numbers of these bits. */
export const ofBits = (...bits: number[]) => new Float32Array(Uint32Array.from(bits).buffer);
/** The bits of float32 numbers. */
export const bitsOf = (values: Float32Array<ArrayBuffer>) => [...new Uint32Array(values.buffer)];
/** NaNs with a payload, zeros of both signs, infinities, ordinary numbers. */
export const ODD_BITS = [0x7fc01234, 0x80000000, 0xffc00001, 0, 0x7f800000, 0x3f800001];
