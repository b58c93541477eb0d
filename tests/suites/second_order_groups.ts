/** Second order over a kind of group: uneven ranks, one of them empty, are one rank that has all of the batch, by weights too. */

import assert from "node:assert/strict";
import {
  initBatchNorm,
  type ProcessGroup,
  referenceDevice,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormBackwardBackward,
  syncBatchNormBackwardMoments,
  syncBatchNormForward,
  syncBatchNormJvp,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import { assertClose, EPSILON, type GroupKit, register } from "../kit.ts";
import { normalArray } from "../random.ts";

/** Samples of each rank, of a batch (N, 3, 2). */
const COUNTS = [3, 0, 1, 5];
const [SAMPLES, VALUES] = [9, 6];

/** What a rank has of second order: of its samples, and of the weight. */
interface Parts {
  readonly ofSamples: readonly number[][];
  readonly gradWeight: readonly number[];
}

/** Samples [from, to) on a rank; exported so that one in another thread or process can find it. */
export async function secondOrderOf(
  group: ProcessGroup,
  counts: readonly number[],
): Promise<readonly Parts[]> {
  const from = counts.slice(0, group.rank).reduce((sum, count) => sum + count, 0);
  const samples = counts[group.rank];
  const device = referenceDevice();
  const effects = { device, group };
  const put = (seed: number) => {
    const own = normalArray(SAMPLES * VALUES, seed).subarray(VALUES * from);
    return tensor(device, own.slice(0, VALUES * samples), [samples, 3, 2]);
  };
  const vector = (seed: number) => device.upload(normalArray(3, seed));
  const state = initBatchNorm(device, 3, { eps: 0.1 });
  const numbers = Float32Array.from({ length: samples }, (_, i) => (from + i) % 3);
  const results: Parts[] = [];
  for (const options of [{}, { weights: device.upload(numbers) }]) {
    const { saved } = await syncBatchNormForward(state, put(1), effects, options);
    const [dy, along] = [put(2), put(3)];
    const tangents = { input: along, weight: vector(4), bias: vector(5) };
    const jvp = await syncBatchNormJvp(saved, tangents, effects);
    const { sums } = await syncBatchNormBackward(saved, dy, effects, { keepSums: true });
    const cotangents = { gradInput: along, gradWeight: vector(6), gradBias: vector(7) };
    const second = await syncBatchNormBackwardBackward(saved, dy, cotangents, effects, { sums });
    const whole = await syncBatchNormBackwardBackward(saved, dy, cotangents, effects);
    // What the ranks' gradients by a statistic come to: one of them has it.
    const moments = from === 0 && samples > 0 ? { dmean: vector(8), dvariance: vector(9) } : {};
    const owed = await syncBatchNormBackwardMoments(saved, dy, moments, effects);
    const read = async (tensor: Tensor<typeof tangents.weight>) => [
      ...await toArray(device, tensor),
    ];
    assert.deepEqual(await read(second.gradInput), await read(whole.gradInput));
    const tensors = [jvp, second.gradInput, second.gradGradOutput, owed.gradInput];
    results.push({
      ofSamples: await Promise.all(tensors.map(read)),
      gradWeight: [...await device.download(second.gradWeight!)],
    });
  }
  return results;
}

/** Registers the test of a kind of group. */
export function secondOrderOverGroup(kit: GroupKit): void {
  const task = { module: import.meta.url, name: "secondOrderOf", body: secondOrderOf };
  register(kit, "second order over uneven ranks is that of one, by weights too", async () => {
    const [whole] = await runRanks(1, (group) => secondOrderOf(group, [SAMPLES]));
    const ranks = await kit.run(COUNTS.length, task, COUNTS);
    const close = { absolute: 4 * EPSILON.float32, relative: 4 * EPSILON.float32 };
    whole.forEach(({ ofSamples, gradWeight }, i) => {
      ofSamples.forEach((wanted, k) => {
        assertClose(ranks.flatMap((own) => own[i].ofSamples[k]), wanted, close, `${i} ${k}`);
      });
      const summed = ranks.map((own) => own[i].gradWeight)
        .reduce((a, b) => a.map((value, c) => value + b[c]));
      assertClose(summed, gradWeight, { ...close, absolute: 16 * close.absolute }, "gradWeight");
    });
  });
}
