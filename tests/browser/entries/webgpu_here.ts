/** WebGPU in a worker of a page that is isolated: a training step, and what is chosen where there is no hardware. */

import assert from "node:assert/strict";
import { requestDevice } from "../../../kernels/request_device.ts";
import { requestWebGpuDevice } from "../../../kernels/webgpu_device.ts";
import { assertTrains } from "../training.ts";

Deno.test("webgpu: a worker trains on a device of its own", async () => {
  await using device = await requestWebGpuDevice();
  await assertTrains(device);
});

Deno.test("requestDevice() takes no software for a GPU, and says so", async () => {
  await using device = await requestDevice({ wasm: { threads: 2 } });
  assert.equal(device.kind, "wasm");
  assert.match(device.reason, /adapter/);
});
