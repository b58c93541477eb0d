/**
 * The network of PyTorch's own SyncBatchNorm tests, with its own layers as plain float64 loops:
 * Linear(2, 40) -> (N, 4, 10) -> BatchNorm(4) -> (N, 40) -> Linear(40, 4) -> softmax, mean-squared error,
 * `parameter += gradient`.
 */

import {
  batchNormBackward,
  batchNormForward,
  type BatchNormState,
  type Device,
  initBatchNorm,
  type ProcessGroup,
  region,
  stateFromHost,
  stateToHost,
  sum,
  syncBatchNormBackward,
  syncBatchNormForward,
  tensor,
  toArray,
} from "../mod.ts";
import { normalArray, uniforms } from "./random.ts";

/** A training run: rows of two inputs and four targets, and which rows each rank holds. */
export interface NetRun {
  readonly rows: number;
  readonly affine: boolean;
  readonly iterations: number;
}

/** All parameters and running statistics after one iteration, in one flat list. */
export type Snapshot = readonly number[];

/**
 * Trains on the rows `from` up to `to` of a batch that is shuffled between iterations.
 *
 * @returns the parameters after every iteration
 */
export async function trainNet<A>(
  device: Device<A>,
  { rows, affine, iterations }: NetRun,
  [from, to]: readonly [number, number],
  group?: ProcessGroup,
): Promise<Snapshot[]> {
  let first = Float64Array.from(normalArray(80, 1, 0, 0.5));
  let last = Float64Array.from(normalArray(160, 2, 0, 0.2));
  let host = await stateToHost(device, initBatchNorm(device, 4, { affine }));
  const uniform = uniforms(3);
  const order = Array.from({ length: rows }, (_, i) => i);
  const inputs = normalArray(2 * rows, 4);
  const targets = normalArray(4 * rows, 5);
  const snapshots: Snapshot[] = [];
  for (let iteration = 0; iteration < iterations; iteration++) {
    const mine = order.slice(from, to);
    const x = mine.flatMap((row) => [...inputs.slice(2 * row, 2 * row + 2)]);
    const t = mine.flatMap((row) => [...targets.slice(4 * row, 4 * row + 4)]);
    const hidden = multiply(x, first, 2, 40);
    const gradients = await region(device, async (scope) => {
      const state = stateFromHost(scope, host);
      const norm = await normalize(scope, state, hidden, group);
      const scores = multiply(norm.output, last, 40, 4);
      const p = softmax(scores);
      const dp = p.map((value, i) => 2 * (value - t[i]) / (4 * rows));
      const dscores = softmaxBackward(p, dp);
      const back = await norm.backward(transposedMultiply(dscores, last, 40, 4));
      host = { ...await stateToHost(scope, norm.state), weight: host.weight, bias: host.bias };
      return [
        ...outerSum(x, back.gradInput, 2, 40),
        ...outerSum(norm.output, dscores, 40, 4),
        ...back.gradWeight,
        ...back.gradBias,
      ];
    });
    const local = Float64Array.from(gradients);
    const total = group ? await group.allReduce(local, sum, { label: "gradients" }) : local;
    const add = (values: Float64Array, at: number) =>
      values.map((value, i) => value + total[at + i]);
    first = add(first, 0);
    last = add(last, 80);
    const addVector = (vector: Float32Array | null, at: number) =>
      vector && vector.map((value, c) => value + total[at + c]);
    host = { ...host, weight: addVector(host.weight, 240), bias: addVector(host.bias, 244) };
    snapshots.push([
      ...first,
      ...last,
      ...host.weight ?? [],
      ...host.bias ?? [],
      ...host.runningMean ?? [],
      ...host.runningVar ?? [],
    ]);
    for (let i = rows - 1; i > 0; i--) {
      const j = Math.floor(uniform() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
  }
  return snapshots;
}

async function normalize<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  hidden: readonly number[],
  group?: ProcessGroup,
) {
  const shape = [hidden.length / 40, 4, 10];
  const input = tensor(device, hidden, shape);
  const vector = async (array: A | null) => array === null ? [] : [...await device.download(array)];
  const forward = group
    ? await syncBatchNormForward(state, input, { device, group })
    : batchNormForward(state, input, { device });
  return {
    state: forward.state,
    output: [...await toArray(device, forward.output)],
    backward: async (gradient: readonly number[]) => {
      const dy = tensor(device, gradient, shape);
      const { saved } = forward;
      const result = saved.kind === "local"
        ? batchNormBackward(saved, dy, { device })
        : await syncBatchNormBackward(saved, dy, { device, group: group! });
      return {
        gradInput: [...await toArray(device, result.gradInput)],
        gradWeight: await vector(result.gradWeight),
        gradBias: await vector(result.gradBias),
      };
    },
  };
}

/** (rows, from) times (from, to). */
function multiply(x: ArrayLike<number>, w: ArrayLike<number>, from: number, to: number): number[] {
  return Array.from({ length: x.length / from * to }, (_, at) => {
    const [row, column] = [Math.floor(at / to), at % to];
    let total = 0;
    for (let k = 0; k < from; k++) total += x[row * from + k] * w[k * to + column];
    return total;
  });
}

/** (rows, to) times the transpose of (from, to). */
function transposedMultiply(
  dy: ArrayLike<number>,
  w: ArrayLike<number>,
  from: number,
  to: number,
): number[] {
  return Array.from({ length: dy.length / to * from }, (_, at) => {
    const [row, k] = [Math.floor(at / from), at % from];
    let total = 0;
    for (let column = 0; column < to; column++) total += dy[row * to + column] * w[k * to + column];
    return total;
  });
}

/** The transpose of (rows, from) times (rows, to). */
function outerSum(x: ArrayLike<number>, dy: ArrayLike<number>, from: number, to: number): number[] {
  const total: number[] = new Array(from * to).fill(0);
  for (let row = 0; row < x.length / from; row++) {
    for (let k = 0; k < from; k++) {
      for (let column = 0; column < to; column++) {
        total[k * to + column] += x[row * from + k] * dy[row * to + column];
      }
    }
  }
  return total;
}

function softmax(scores: readonly number[]): number[] {
  const exps = scores.map(Math.exp);
  return exps.map((value, i) => {
    const row = i - i % 4;
    return value / (exps[row] + exps[row + 1] + exps[row + 2] + exps[row + 3]);
  });
}

function softmaxBackward(p: readonly number[], dp: readonly number[]): number[] {
  return p.map((value, i) => {
    const row = i - i % 4;
    let mean = 0;
    for (let k = row; k < row + 4; k++) mean += p[k] * dp[k];
    return value * (dp[i] - mean);
  });
}
