/** Calls of second order: what they refuse, how they cross a group, what they leave behind. */

import assert from "node:assert/strict";
import {
  batchNormBackward,
  batchNormBackwardBackward,
  batchNormBackwardMoments,
  batchNormForward,
  batchNormInferJvp,
  batchNormJvp,
  type Device,
  initBatchNorm,
  type ProcessGroup,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormBackwardBackward,
  syncBatchNormBackwardMoments,
  syncBatchNormForward,
  syncBatchNormJvp,
  tensor,
  toArray,
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
    const kept = (sums: object | null) => () =>
      batchNormBackwardBackward(saved, x, { gradInput: x }, effects, { sums: sums as never });
    throwsLike(kept(null), TypeError, /gradients of the gradients with the local sums/);
    throwsLike(kept({ local: two, total: two }), TypeError, /local sums must hold 6 numbers/);
    const options = { keepSums: true };
    const { sums } = batchNormBackward(saved, x, effects, options);
    device.free(sums!.local);
    throwsLike(kept(sums!), TypeError, /the local sums/);
    throwsLike(
      () => batchNormBackwardMoments(saved, x, {}, effects, options as object),
      TypeError,
      /options may be donate, signal/,
    );
    const bare: Device<A> = { ...device, info: { ...device.info, passes: ["residual"] } };
    assert.throws(
      () => batchNormJvp(saved, { input: x }, { device: bare }),
      /must honour tangents in a pass: current ones are residual/,
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
    const { sums } = batchNormBackward(saved, dy, { device: counted }, { keepSums: true });
    batchNormBackwardBackward(saved, dy, directions, { device: counted }, { sums });
    batchNormBackwardMoments(saved, dy, { dmean: vector, dvariance: vector }, { device: counted });
    batchNormInferJvp(state, x, tangents, { device: counted }, options);
    // Tangents, 3 gradients, 4 gradients and sums, 3, 4, tangents.
    assert.equal(alive(), before + 17);
    await runRanks(2, async (group) => {
      const effects = { device: counted, group };
      const { saved } = await syncBatchNormForward(state, x, effects, options);
      await group.allReduce(new Float64Array(1), (a) => a);
      const before = alive();
      await group.allReduce(new Float64Array(1), (a) => a);
      await syncBatchNormJvp(saved, tangents, effects);
      await syncBatchNormBackwardBackward(saved, dy, directions, effects);
      const { sums } = await syncBatchNormBackward(saved, dy, effects, { keepSums: true });
      await syncBatchNormBackwardBackward(saved, dy, directions, effects, { sums });
      await syncBatchNormBackwardMoments(saved, dy, { dmean: vector }, effects);
      await group.allReduce(new Float64Array(1), (a) => a);
      assert.equal(alive(), before + 2 * 17);
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
      const directions = { gradInput: x, gradWeight: device.upload(Float32Array.of(1, 2, 3)) };
      const own = await syncBatchNormBackwardBackward(saved, x, directions, effects);
      const { sums } = await syncBatchNormBackward(saved, x, effects, { keepSums: true });
      const kept = await syncBatchNormBackwardBackward(saved, x, directions, effects, { sums });
      for (const name of ["gradInput", "gradGradOutput"] as const) {
        const [one, other] = [own, kept].map((second) => toArray(device, second[name]));
        assert.deepEqual(await one, await other, `${name} by sums that were kept`);
      }
      const [one, other] = [own, kept].map(({ gradWeight }) => device.download(gradWeight!));
      assert.deepEqual(await one, await other);
      await syncBatchNormBackwardMoments(saved, x, {}, effects);
    });
    assert.deepEqual(sizes, [
      "syncBatchNormForward C=3 float32 7",
      "syncBatchNormJvp C=3 float32 6",
      "syncBatchNormBackwardBackward C=3 float32 21",
      "syncBatchNormBackward C=3 float32 6",
      "syncBatchNormBackwardBackward C=3 float32 sums 15",
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
      // Sums that one rank alone has kept would be a wire of another length.
      const { sums } = await syncBatchNormBackward(saved, x, effects, { keepSums: true });
      const options = group.rank === 0 ? { sums } : {};
      const mixed = syncBatchNormBackwardBackward(saved, x, { gradInput: x }, effects, options);
      await assert.rejects(mixed, /float32 sums/);
      await syncBatchNormJvp(saved, { input: x }, effects);
    });
  });
}
