/** The plan, and what a mask saves. */

import assert from "node:assert/strict";
import { batchNormBackward, batchNormForward, initBatchNorm, tensor, toArray } from "../../mod.ts";
import { rectifiedBy } from "../../lib/activation.ts";
import { explain, unwrap } from "../../kernels/webgpu_device.ts";
import { normalArray } from "../random.ts";
import type { Opener } from "../webgpu_kit.ts";

/** Registers the tests. */
export function planTests({ test }: Opener): void {
  test("a plan says what is launched", {
    everything: true,
  }, async ({ device, recording }) => {
    const shape = [4, 6, 8, 8];
    const plan = explain(device, shape);
    assert.equal(plan.pack, "places");
    assert.deepEqual(plan.passes, { forward: 3, backward: 5 });
    assert.equal(explain(device, [4, 6, 3, 3]).pack, "none");
    assert.equal(explain(device, [4, 6, 4], { format: "channelsLast" }).pack, "none");
    assert.equal(explain(device, [4, 8, 3], { format: "channelsLast" }).pack, "channels");
    assert.equal(explain(device, [4, 8]).pack, "channels");
    const gated = explain(device, shape, { activation: true });
    assert.deepEqual([gated.gate, gated.passes], ["mask", { forward: 3, backward: 5 }]);
    const unpacked = explain(device, [4, 6, 3, 3], { activation: true });
    assert.deepEqual([unpacked.gate, unpacked.passes], ["output", { forward: 3, backward: 7 }]);
    assert.equal(plan.gate, null);
    assert.throws(() => explain(device, [0, 6]), RangeError);
    assert.throws(() => explain(device, [6]), TypeError);

    const input = tensor(device, normalArray(1536, 1), shape);
    const before = recording.counts().dispatches;
    const { saved } = batchNormForward(initBatchNorm(device, 6), input, { device });
    const { moments, normalize, gradientSums, gradients } = plan;
    const forward = recording.counts().dispatches;
    assert.equal(forward - before, moments.launches + normalize.launches + 1); // And the running statistics.
    batchNormBackward(saved, input, { device });
    assert.equal(
      recording.counts().dispatches - forward,
      gradientSums.launches + gradients.launches,
    );
    await device.download(input.data);
  });

  test("with a mask backward binds no output, which keeps the mask until it is freed", {
    everything: true,
  }, async ({ device, recording }) => {
    const state = initBatchNorm(device, 4, { trackRunningStats: false });
    const shape = [8, 4, 32, 32];
    const x = tensor(device, normalArray(32768, 1), shape);
    const relu = { activation: "relu" } as const;
    const forward = batchNormForward(state, x, { device }, relu);
    // An output that is an array of its own has no mask, and is read.
    const copy = tensor(device, await toArray(device, forward.output), shape);
    const read = batchNormBackward({ ...forward.saved, output: rectifiedBy("relu", copy) }, x, {
      device,
    });
    const { buffer, offset, size } = unwrap(forward.output);
    device.gpuDevice.queue.writeBuffer(buffer, offset, new Uint8Array(size));
    const masked = batchNormBackward(forward.saved, x, { device });
    const gradients = await toArray(device, masked.gradInput);
    assert.deepEqual(gradients, await toArray(device, read.gradInput));
    const closed = batchNormBackward(
      {
        ...forward.saved,
        output: rectifiedBy("relu", tensor(device, new Float32Array(32768), shape)),
      },
      x,
      { device },
    );
    assert.notDeepEqual(gradients, await toArray(device, closed.gradInput));
    const before = recording.counts().buffers;
    for (let i = 0; i < 20; i++) {
      const { output, saved } = batchNormForward(state, x, { device }, relu);
      device.free(output.data, saved.moments.data);
    }
    assert(recording.counts().buffers - before <= 3, "masks go with their outputs");
    await toArray(device, x);
  });
}
