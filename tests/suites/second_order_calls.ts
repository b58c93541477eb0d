/** Calls of second order: what they refuse, how they cross a group, what they leave behind. */

import assert from "node:assert/strict";
import {
  batchNormBackwardBackward,
  batchNormBackwardMoments,
  batchNormForward,
  batchNormInferJvp,
  batchNormJvp,
  type Device,
  initBatchNorm,
  type ProcessGroup,
  runRanks,
  syncBatchNormBackwardBackward,
  syncBatchNormBackwardMoments,
  syncBatchNormForward,
  syncBatchNormJvp,
  tensor,
} from "../../mod.ts";
import { type DeviceKit, testsOf, throwsLike } from "../kit.ts";
import { normalArray } from "../random.ts";
import { census } from "../recording.ts";

/** Registers the tests of calls for a device: those of the library, which are the same on every device. */
export function secondOrderCallSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("second order refuses what does not fit, and names it", (device) => {
    const effects = { device };
    const put = (shape: number[]) => tensor(device, normalArray(shape[0] * shape[1], 1), shape);
    const x = put([4, 3]);
    const state = initBatchNorm(device, 3, { affine: false });
    const { saved } = batchNormForward(state, x, effects);
    const two = device.upload(new Float32Array(2));
    const three = device.upload(new Float32Array(3));
    const jvp = (tangents: object) => () => batchNormJvp(saved, tangents as never, effects);
    const double = (cotangents: object) => () =>
      batchNormBackwardBackward(saved, x, cotangents as never, effects);
    throwsLike(
      jvp({ input: put([3, 3]) }),
      TypeError,
      /follow the directions as the direction input's shape/,
    );
    throwsLike(jvp({}), TypeError, /the direction input must be a tensor/);
    throwsLike(
      jvp({ input: x, weigth: three }),
      TypeError,
      /input, weight, bias, residual: current/,
    );
    throwsLike(
      jvp({ input: x, weight: three }),
      TypeError,
      /must have had a weight where weight is/,
    );
    throwsLike(jvp({ input: x, residual: x }), TypeError, /must have had a residual/);
    throwsLike(double({ gradInput: put([3, 3]) }), TypeError, /gradInput's shape must be/);
    throwsLike(double({ gradInput: x, gradBias: three }), TypeError, /had a bias where gradBias/);
    throwsLike(double({ gradInput: x, gradResidual: x }), TypeError, /had a residual/);
    throwsLike(
      () => batchNormBackwardMoments(saved, x, { dmean: two }, effects),
      TypeError,
      /dmean must hold 3 float32 values/,
    );
    throwsLike(
      () => batchNormJvp({ ...saved, kind: "group" } as never, { input: x }, effects),
      TypeError,
      /batchNormJvp takes what batchNormForward saved/,
    );
    throwsLike(
      () => batchNormInferJvp(state, x, { input: x }, effects, { donate: true } as never),
      TypeError,
      /options may be activation, residual/,
    );
    const bare: Device<A> = { ...device, info: { ...device.info, passes: ["residual"] } };
    assert.throws(
      () => batchNormJvp(saved, { input: x }, { device: bare }),
      /must honour secondOrder in a pass: current ones are residual/,
    );
  });

  test("second order frees all but its results, alone and over a group", async (device) => {
    const { device: counted, alive } = census(device);
    const put = (n: number) => tensor(counted, normalArray(12, n), [4, 3]);
    const [x, dy, a, residual] = [1, 2, 3, 4].map(put);
    const state = initBatchNorm(counted, 3);
    const vector = counted.upload(Float32Array.of(1, 2, 3));
    const options = { activation: "relu", residual } as const;
    const directions = { gradInput: a, gradWeight: vector, gradBias: vector, gradResidual: a };
    const tangents = { input: a, weight: vector, bias: vector, residual: a };
    const { saved } = batchNormForward(state, x, { device: counted }, options);
    const before = alive();
    batchNormJvp(saved, tangents, { device: counted });
    batchNormBackwardBackward(saved, dy, directions, { device: counted });
    batchNormBackwardMoments(saved, dy, { dmean: vector, dvariance: vector }, { device: counted });
    batchNormInferJvp(state, x, tangents, { device: counted }, options);
    // Tangents, 3 gradients, 4 gradients, tangents.
    assert.equal(alive(), before + 9);
    await runRanks(2, async (group) => {
      const effects = { device: counted, group };
      const { saved } = await syncBatchNormForward(state, x, effects, options);
      await group.allReduce(new Float64Array(1), (a) => a);
      const before = alive();
      await group.allReduce(new Float64Array(1), (a) => a);
      await syncBatchNormJvp(saved, tangents, effects);
      await syncBatchNormBackwardBackward(saved, dy, directions, effects);
      await syncBatchNormBackwardMoments(saved, dy, { dmean: vector }, effects);
      await group.allReduce(new Float64Array(1), (a) => a);
      assert.equal(alive(), before + 2 * 8);
    });
  });

  test("second order takes one collective of so many numbers each", async (device) => {
    const sizes: string[] = [];
    await runRanks(2, async (group) => {
      const watched: Pick<ProcessGroup, "worldSize" | "allReduce"> = {
        worldSize: 2,
        allReduce: async (local, combine, options) => {
          const own = await local;
          if (group.rank === 0) sizes.push(`${options?.label} ${own.length}`);
          return await group.allReduce(own, combine, options);
        },
      };
      const x = tensor(device, normalArray(group.rank * 6, 1), [2 * group.rank, 3]);
      const effects = { device, group: watched };
      const { saved } = await syncBatchNormForward(initBatchNorm(device, 3), x, effects);
      await syncBatchNormJvp(saved, { input: x }, effects);
      await syncBatchNormBackwardBackward(saved, x, { gradInput: x }, effects);
      await syncBatchNormBackwardMoments(saved, x, {}, effects);
    });
    assert.deepEqual(sizes, [
      "syncBatchNormForward C=3 float32 7",
      "syncBatchNormJvp C=3 float32 6",
      "syncBatchNormBackwardBackward C=3 float32 21",
      "syncBatchNormBackwardMoments C=3 float32 12",
    ]);
  });

  test("a rank's wrong direction is the failure of all, and they go on", async (device) => {
    await runRanks(2, async (group) => {
      const x = tensor(device, normalArray(6, 1 + group.rank), [2, 3]);
      const wrong = tensor(device, normalArray(4, 1), [2, 2]);
      const effects = { device, group };
      const { saved } = await syncBatchNormForward(initBatchNorm(device, 3), x, effects);
      const input = group.rank === 0 ? x : wrong;
      const calls = [
        () => syncBatchNormJvp(saved, { input }, effects),
        () => syncBatchNormBackwardBackward(saved, x, { gradInput: input }, effects),
        () => syncBatchNormBackwardMoments(saved, input, {}, effects),
      ];
      for (const call of calls) await assert.rejects(call(), /Rank 1 failed .* shape must be/);
      await syncBatchNormJvp(saved, { input: x }, effects);
    });
  });
}
