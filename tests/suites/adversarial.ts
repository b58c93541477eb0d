/**
 * Adversarial values (NaN, infinities, huge and subnormal numbers, -0) and what each gives: the reference decides, and
 * where a device may differ by its nature, its kit says so.
 */

import assert from "node:assert/strict";
import {
  batchNormBackward,
  batchNormForward,
  type BatchNormState,
  type Device,
  type Format,
  runRanks,
  stateFromHost,
  stateToHost,
  syncBatchNormBackward,
  syncBatchNormForward,
  tensor,
  toArray,
} from "../../mod.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { normalArray } from "../random.ts";
import { elementSuite } from "./adversarial_elements.ts";
import { evaluationSuite } from "./adversarial_evaluation.ts";
import { gradientSuite } from "./adversarial_gradients.ts";
import { assertValues, BATCHES, pack, promised, train, unpack } from "./adversarial_values.ts";

const DY = [1, 2, -1, 0.5, 3, -2];
const FORMATS: readonly Format[] = ["channelsFirst", "channelsLast"];
const AFFINE = { weight: 2, bias: 0.5 };

/** Registers the tests of adversarial values for a device. */
export function adversarialSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("special values in a batch: training gives what IEEE 754 says", async (device) => {
    for (const format of FORMATS) {
      for (const eps of [0, 1e-5]) {
        const given = BATCHES.map(({ x }) => x);
        const { y, dx, state, gradWeight, gradBias } = await step(device, given, format, eps);
        BATCHES.forEach((batch, c) => {
          if (!promised(batch, kit)) return;
          const expected = train(batch, DY, { ...AFFINE, eps }, kit);
          const what = `${batch.what}, eps ${eps}, ${format}`;
          assertValues(y[c], expected.y, `${what}: y`);
          assertValues(dx[c], expected.dx, `${what}: gradInput`);
          const { runningMean, runningVar } = state;
          assertValues([runningMean![c]], expected.runningMean, `${what}: runningMean`);
          assertValues([runningVar![c]], expected.runningVar, `${what}: runningVar`);
          assertValues([gradWeight[c]], expected.gradWeight, `${what}: gradWeight`);
          assertValues([gradBias[c]], expected.gradBias, `${what}: gradBias`);
        });
      }
    }
  });

  test("special values leave every other channel as it is, bit for bit", async (device) => {
    const normals = BATCHES.map((_, c) => [...normalArray(6, c, c % 3 ? 10 * c : 0)]);
    const beside = (special: (c: number) => readonly number[]) =>
      normals.flatMap((x, c) => [special(c), x]);
    const ordinary = <T>(all: ArrayLike<T>) => Array.from(all).filter((_, c) => c % 2 === 1);
    for (const format of FORMATS) {
      const results = [];
      for (const special of [(c: number) => BATCHES[c].x, () => [1, 2, 3, 4, 5, 6]]) {
        const { y, dx, state, gradWeight, gradBias } = await step(
          device,
          beside(special),
          format,
          1e-5,
        );
        const { runningMean, runningVar } = state;
        results.push({
          ...{ y: ordinary(y), dx: ordinary(dx) },
          vectors: [runningMean!, runningVar!, gradWeight, gradBias].map(ordinary<number>),
        });
      }
      assert.deepEqual(results[0], results[1], format);
      assert(results[0].y.flat().every((value) => Math.abs(value) < 6));
    }
  });

  for (const cuts of [[0, 2, 2, 5, 6], [0, 1, 3, 3, 6]]) {
    test(`special values on one of 4 ranks (${cuts}) reach all, as on one rank`, async (device) => {
      const C = BATCHES.length;
      const rows = (of: (c: number) => readonly number[], rank: number) => {
        const [from, to] = cuts.slice(rank);
        const samples = Array.from({ length: to - from }, (_, n) => n + from);
        const values = samples.flatMap((n) => BATCHES.map((_, c) => of(c)[n]));
        return tensor(device, values, [to - from, C]);
      };
      const eps = 1e-5;
      const state = stateOf(device, C, eps);
      const ranks = await runRanks(4, async (group) => {
        const input = rows((c) => BATCHES[c].x, group.rank);
        const forward = await syncBatchNormForward(state, input, { device, group });
        const dy = rows(() => DY, group.rank);
        const { gradInput, gradWeight, gradBias } = await syncBatchNormBackward(
          forward.saved,
          dy,
          { device, group },
        );
        return {
          y: await toArray(device, forward.output),
          dx: await toArray(device, gradInput),
          state: await stateToHost(device, forward.state),
          gradWeight: await device.download(gradWeight!),
          gradBias: await device.download(gradBias!),
        };
      });
      // The same numbers on every rank; a NaN has bits that are a machine's own.
      const vectors = ({ state }: typeof ranks[number]) =>
        [state.runningMean!, state.runningVar!].map((vector) => Array.from(vector));
      for (const rank of ranks) assert.deepEqual(vectors(rank), vectors(ranks[0]));
      const { runningMean, runningVar } = ranks[0].state;
      const column = (c: number, pick: (rank: typeof ranks[number]) => Float32Array) =>
        ranks.flatMap((rank) => [...pick(rank)].filter((_, i) => i % C === c));
      BATCHES.forEach((batch, c) => {
        if (!promised(batch, kit)) return;
        const expected = train(batch, DY, { ...AFFINE, eps }, kit);
        const total = (values: readonly number[]) => values.reduce((a, b) => a + b);
        assertValues(column(c, ({ y }) => y), expected.y, `${batch.what}: y`);
        assertValues(column(c, ({ dx }) => dx), expected.dx, `${batch.what}: gradInput`);
        assertValues([runningVar![c]], expected.runningVar, `${batch.what}: runningVar`);
        assertValues([runningMean![c]], expected.runningMean, `${batch.what}: runningMean`);
        const gradWeight = total(column(c, (rank) => rank.gradWeight));
        assertValues([gradWeight], expected.gradWeight, `${batch.what}: gradWeight`);
        const gradBias = total(column(c, (rank) => rank.gradBias));
        assertValues([gradBias], expected.gradBias, `${batch.what}: gradBias`);
      });
    });
  }

  gradientSuite(kit);
  evaluationSuite(kit);
  elementSuite(kit);
}

function stateOf<A>(device: Device<A>, C: number, eps: number): BatchNormState<A> {
  return stateFromHost(device, {
    ...{ numFeatures: C, eps, momentum: 1, numBatchesTracked: 0 },
    weight: new Float32Array(C).fill(AFFINE.weight),
    bias: new Float32Array(C).fill(AFFINE.bias),
    ...{ runningMean: new Float32Array(C), runningVar: new Float32Array(C).fill(1) },
  });
}

/** A forward and a backward pass over six values per channel. */
async function step<A>(
  device: Device<A>,
  channels: readonly (readonly number[])[],
  format: Format,
  eps: number,
) {
  const C = channels.length;
  const input = tensor(device, pack(channels, format), [2, C, 3], { format });
  const dy = tensor(device, pack(channels.map(() => DY), format), [2, C, 3], { format });
  const forward = batchNormForward(stateOf(device, C, eps), input, { device });
  const backward = batchNormBackward(forward.saved, dy, { device });
  return {
    y: unpack(await toArray(device, forward.output), format),
    dx: unpack(await toArray(device, backward.gradInput), format),
    state: await stateToHost(device, forward.state),
    gradWeight: await device.download(backward.gradWeight!),
    gradBias: await device.download(backward.gradBias!),
  };
}
