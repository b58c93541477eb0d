/** A page whose policy forbids Wasm. */

import assert from "node:assert/strict";
import { requestDevice } from "../../../kernels/request_device.ts";
import { wasmDevice } from "../../../kernels/wasm_device.ts";
import { requestWebGpuDevice } from "../../../kernels/webgpu_device.ts";
import { referenceDevice } from "../../../mod.ts";
import { assertTrains } from "../training.ts";

const told = {
  name: "DeviceError",
  code: "unsupported",
  message: /'wasm-unsafe-eval'.*script-src/,
};

Deno.test("wasmDevice() names the directive that a page's policy lacks", async () => {
  await assert.rejects(wasmDevice(), told);
});

Deno.test("requestDevice() says by a DeviceError that neither device may be had, and why", async () => {
  await assert.rejects(requestDevice(), told);
});

Deno.test("WebGPU needs no directive", async () => {
  await using device = await requestWebGpuDevice();
  await assertTrains(device);
});

Deno.test("referenceDevice() needs no directive", async () => {
  await assertTrains(referenceDevice());
});
