/** What the functions do to the world: launches, readbacks, collectives, and in which order. */

import assert from "node:assert/strict";
import {
  type AllReduce,
  batch,
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  type Device,
  initBatchNorm,
  runRanks,
  stateToHost,
  syncBatchNormBackward,
  syncBatchNormForward,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import { labelOn } from "../../lib/norm/steps.ts";
import { assertClose, type DeviceKit, EPSILON, testsOf } from "../kit.ts";
import { record } from "../recording.ts";

const CHECKS = ["describe", "owns", "free"];

/** Registers the tests of effects for a device. */
export function effectSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);
  const launches = (calls: readonly string[]) => calls.filter((call) => !CHECKS.includes(call));

  test("local functions launch one batch each and read nothing back", (device) => {
    const watched = record(device);
    const effects = { device: watched.device };
    const state = initBatchNorm(device, 3);
    const x = input(device);
    const forward = batchNormForward(state, x, effects);
    assert.deepEqual(launches(watched.calls.splice(0)), [
      ...["batch", "moments", "normalize", "updateRunningStats", "end"],
    ]);
    batchNormBackward(forward.saved, x, effects);
    assert.deepEqual(
      launches(watched.calls.splice(0)),
      ["batch", "gradientSums", "gradients", "end"],
    );
    batchNormInfer(state, x, effects);
    assert.deepEqual(launches(watched.calls.splice(0)), ["batch", "normalize", "end"]);
    batchNormInferBackward(state, x, x, effects);
    assert.deepEqual(
      launches(watched.calls.splice(0)),
      ["batch", "gradientSums", "gradients", "end"],
    );
  });

  test("residual and activation cost a fused device no launch, another one each", (device) => {
    const watched = record(device);
    const effects = { device: watched.device };
    const state = initBatchNorm(device, 3, { trackRunningStats: false });
    const residual = input(device);
    const launched = (body: () => unknown) => {
      watched.calls.length = 0;
      body();
      return launches(watched.calls).filter((call) => call !== "batch" && call !== "end");
    };
    const forward = (residual?: Tensor<A>) => {
      const options = { activation: "relu", ...(residual && { residual }) } as const;
      return batchNormForward(state, input(device), effects, options);
    };
    const plain = forward();
    const both = forward(residual);
    const back = ({ saved }: typeof plain) =>
      launched(() => batchNormBackward(saved, input(device), effects));
    for (const added of [undefined, residual]) {
      assert.deepEqual(launched(() => forward(added)), ["moments", "normalize"]);
    }
    for (const made of [plain, both]) assert.deepEqual(back(made), ["gradientSums", "gradients"]);
  });

  test("synchronised functions read back, communicate and upload once per direction", async (device) => {
    const state = initBatchNorm(device, 3);
    const x = input(device);
    // What a device can read at once is read so.
    const read = device.toWireNow ? "toWireNow" : "toWire";
    await runRanks(3, async (group) => {
      const watched = record(device);
      const labels: string[] = [];
      const allReduce: AllReduce = (local, combine, options) => {
        labels.push(`${options?.label}`);
        return group.allReduce(local, combine, options);
      };
      const effects = { device: watched.device, group: { worldSize: 3, allReduce } };
      const forward = await syncBatchNormForward(state, x, effects);
      assert.deepEqual(
        launches(watched.calls.splice(0)),
        `batch moments ${read} end
         batch fromWire normalize updateRunningStats end`.split(/\s+/),
      );
      await syncBatchNormBackward(forward.saved, x, effects);
      assert.deepEqual(
        launches(watched.calls.splice(0)),
        `batch gradientSums ${read} end
         batch fromWire gradients end`.split(/\s+/),
      );
      assert.deepEqual(labels, [
        labelOn(device, "syncBatchNormForward C=3 float32"),
        labelOn(device, "syncBatchNormBackward C=3 float32"),
      ]);
    });
  });

  test("the collective is called before the first await", async (device) => {
    const state = initBatchNorm(device, 3);
    const calls: string[] = [];
    const never = new Promise<Float64Array>(() => {});
    const allReduce: AllReduce = (_local, _combine, options) => {
      calls.push(`${options?.label}`);
      return never;
    };
    const effects = { device, group: { worldSize: 2, allReduce } };
    syncBatchNormForward(state, input(device), effects);
    assert.deepEqual(calls, [labelOn(device, "syncBatchNormForward C=3 float32")]);
    const one = await runRanks(
      1,
      (group) => syncBatchNormForward(state, input(device), { device, group }),
    );
    const saved = { ...one[0].saved, worldSize: 2 };
    syncBatchNormBackward(saved, input(device), effects);
    assert.deepEqual(calls[1], labelOn(device, "syncBatchNormBackward C=3 float32"));
  });

  test("a total may take the place of what a rank gave, or not, and is checked beside it either way", async (device) => {
    const state = initBatchNorm(device, 3);
    const x = input(device);
    const asked: unknown[] = [];
    /** A group whose other rank has the same. */
    const twice = (isInPlace: boolean, spoil = (_total: Float64Array) => {}) => {
      const allReduce: AllReduce = async (local, combine, options) => {
        const own = await local;
        asked.push(options?.inPlace);
        const total = combine(own, own.slice());
        spoil(total);
        if (!isInPlace) return total;
        own.set(total);
        return own;
      };
      return { worldSize: 2, allReduce };
    };
    const results = await Promise.all([true, false].map(async (isInPlace) => {
      const effects = { device, group: twice(isInPlace) };
      const { output, saved, state: next } = await syncBatchNormForward(state, x, effects);
      const { gradInput, gradWeight } = await syncBatchNormBackward(saved, output, effects);
      return [
        await stateToHost(device, next),
        await Promise.all([output, gradInput].map((tensor) => toArray(device, tensor))),
        await device.download(gradWeight!),
      ];
    }));
    assert.deepEqual(results[0], results[1]);
    assert.deepEqual(asked, [true, true, true, true]);
    for (const isInPlace of [true, false]) {
      const group = twice(isInPlace, (total) => total[0] = 1);
      await assert.rejects(
        syncBatchNormForward(state, x, { device, group }),
        /must be an integer >= this rank's own, 4/,
      );
    }
  });

  test("a world of one and evaluation never communicate", async (device) => {
    const state = initBatchNorm(device, 3);
    const group = {
      worldSize: 1,
      allReduce: () => Promise.reject(new Error("communicated")),
    };
    const x = input(device);
    const { output, saved } = await syncBatchNormForward(state, x, { device, group });
    await syncBatchNormBackward(saved, x, { device, group });
    const local = batchNormForward(state, x, { device });
    assert.deepEqual(await toArray(device, output), await toArray(device, local.output));
  });

  test("parallel branches stay in order, one of them with an empty batch", async (device) => {
    const [a, b] = [initBatchNorm(device, 3), initBatchNorm(device, 2)];
    const results = await runRanks(3, async (group) => {
      const x = input(device);
      const y = group.rank === 1
        ? tensor(device, [], [0, 2])
        : tensor(device, [1, 2, 3, group.rank], [2, 2]);
      const [left, right] = await Promise.all([
        syncBatchNormForward(a, x, { device, group }),
        syncBatchNormForward(b, y, { device, group }),
      ]);
      await Promise.all([
        syncBatchNormBackward(right.saved, y, { device, group }),
        syncBatchNormBackward(left.saved, x, { device, group }),
      ]);
      return [await stateToHost(device, left.state), await stateToHost(device, right.state)];
    });
    assert.deepEqual(results[0], results[1]);
    assert.deepEqual(results[0], results[2]);
  });

  test("a synchronised call cannot be part of a batch, on any rank", async (device) => {
    const state = initBatchNorm(device, 3);
    await runRanks(2, async (group) => {
      const { call } = batch(device, (d) => ({
        call: syncBatchNormForward(state, input(d), { device: d, group }),
      }));
      await assert.rejects(call, /Cannot launch in the batch as its body has ended/);
    });
  });

  test("arguments may change while a collective is under way", async (device) => {
    const state = initBatchNorm(device, 3);
    const expected = batchNormForward(
      state,
      tensor(device, new Float32Array(24).map((_, i) => i), [4, 3, 2]),
      { device },
    );
    await runRanks(2, async (group) => {
      const values = new Float32Array(12).map((_, i) => 12 * group.rank + i);
      const given = { ...tensor(device, values, [2, 3, 2]) };
      const before = { ...state };
      const call = syncBatchNormForward(before, given, { device, group });
      given.shape = [4, 3, 1];
      before.eps = 100;
      const { output, saved } = await call;
      assert.deepEqual([output.shape, saved.input.shape], [[2, 3, 2], [2, 3, 2]]);
      const gradient = { ...tensor(device, values, [2, 3, 2]) };
      const untouched = await syncBatchNormBackward(saved, gradient, { device, group });
      const back = { ...saved, input: { ...saved.input } };
      const second = syncBatchNormBackward(back, gradient, { device, group });
      gradient.format = "channelsLast";
      back.input.format = "channelsLast";
      back.eps = 100;
      const { gradInput } = await second;
      assert.equal(gradInput.format, "channelsFirst");
      assert.deepEqual(
        await toArray(device, gradInput),
        await toArray(device, untouched.gradInput),
      );
      const all = await toArray(device, expected.output);
      const mine = all.slice(12 * group.rank, 12 * group.rank + 12);
      const tolerance = { absolute: 4 * kit.ulps * EPSILON.float32, relative: 0 };
      assertClose(await toArray(device, output), mine, tolerance, "output");
    });
  });
}

function input<B>(device: Device<B>): Tensor<B> {
  return tensor(device, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13], [2, 3, 2]);
}
