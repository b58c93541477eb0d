import assert from "node:assert/strict";
import {
  batch,
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  initBatchNorm,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormForward,
  tensor,
} from "../mod.ts";
import { type QueuedArray, queuedDevice } from "./queued_device.ts";

Deno.test("local functions take one submit each, a batch of layers one, a synchronised call two", async () => {
  const { device, submits } = queuedDevice();
  const state = initBatchNorm(device, 2);
  const x = tensor(device, [1, 2, 3, 4, 5, 7], [3, 2]);
  const residual = tensor(device, [1, 2, 3, 4, 5, 7], [3, 2], { format: "channelsLast" });
  const options = { activation: "relu", residual } as const;
  const count = async (body: () => unknown) => {
    const before = submits();
    await body();
    return submits() - before;
  };

  const forward = batchNormForward(state, x, { device }, options);
  assert.equal(await count(() => batchNormForward(state, x, { device }, options)), 1);
  assert.equal(await count(() => batchNormBackward(forward.saved, x, { device })), 1);
  assert.equal(await count(() => batchNormInfer(state, x, { device }, options)), 1);
  const layers = () =>
    batch(device, (d) => {
      let y = x;
      for (let layer = 0; layer < 10; layer++) {
        y = batchNormForward(state, y, { device: d }, options).output;
      }
      return y;
    });
  assert.equal(await count(layers), 1);

  await runRanks(2, async (group) => {
    if (group.rank === 1) {
      // On a device of its own, so that this rank's submits are not counted.
      const other = queuedDevice().device;
      const effects = { device: other, group };
      const input = tensor(other, [1, 2, 3, 4], [2, 2]);
      const { saved } = await syncBatchNormForward(initBatchNorm(other, 2), input, effects);
      await syncBatchNormBackward(saved, input, effects);
      return;
    }
    const before = submits();
    const { saved } = await syncBatchNormForward(state, x, { device, group }, options);
    assert.equal(submits() - before, 2);
    await syncBatchNormBackward(saved, x, { device, group });
    assert.equal(submits() - before, 4);
  });
});

Deno.test("the queued device notices a read before the launch, and a batch that was given up", async () => {
  const { device } = queuedDevice();
  const x = device.upload(Float32Array.of(-1, 2));
  let early: Promise<unknown> | undefined;
  let made: QueuedArray | undefined;
  assert.throws(() =>
    device.batch?.((d) => {
      made = d.addScaled({ x, y: x, scale: 0 });
      early = device.download(made); // Around the batch's own handle.
      throw new Error("given up");
    }), /read an array before it was launched|given up/);
  await early?.catch((error) => assert.match(error.message, /before it was launched/));
  assert(made && device.owns(made));
  device.free(made);
  assert.deepEqual(await device.download(x), Float32Array.of(-1, 2), "x is as it was");
});
