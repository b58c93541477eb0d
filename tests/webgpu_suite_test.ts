/**
 * The device suite on this runtime's WebGPU: with all that the adapter has; and with what every GPUDevice has, workgroups as
 * on hardware, windows of 1 MiB and memory that is full of NaN wherever nobody has written.
 */

import { deviceSuite } from "./device_suite.ts";
import { demanded, poison, webgpuKit } from "./webgpu_kit.ts";

const gpu = globalThis.navigator?.gpu;
const present = await gpu?.requestAdapter().then((adapter) => adapter !== null) ?? false;

if (present || demanded("webgpu")) {
  deviceSuite(webgpuKit(gpu, { name: "webgpu", everything: true }));
  deviceSuite(webgpuKit(gpu, {
    ...{ name: "webgpu, smallest limits, poisoned", everything: false },
    ...{ options: { maxBindingBytes: 2 ** 20 }, onBlock: poison, workgroup: 256 },
  }));
} else {
  Deno.test.ignore("webgpu: the device suite (no adapter)", () => {});
}
