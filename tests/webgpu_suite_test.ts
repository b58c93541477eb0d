/** The device suite on this runtime's WebGPU: with what every GPUDevice has, and with windows and poisoned memory. */

import { deviceSuite } from "./device_suite.ts";
import { demanded, poison, webgpuKit } from "./webgpu_kit.ts";

const gpu = globalThis.navigator?.gpu;
const present = await gpu?.requestAdapter().then((adapter) => adapter !== null) ?? false;

if (present || demanded("webgpu")) {
  deviceSuite(webgpuKit(gpu, { name: "webgpu", everything: true }));
} else {
  Deno.test.ignore("webgpu: the device suite (no adapter)", () => {});
}
