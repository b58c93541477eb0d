/**
 * The device suite on this runtime's WebGPU: with all that the adapter has; and with what every GPUDevice has, workgroups as
 * on hardware, windows of 1 MiB and memory that is full of NaN wherever nobody has written.
 */

import { deviceSuite } from "./device_suite.ts";
import { poison, testsWebgpu, webgpuKit } from "./webgpu_kit.ts";

if (await testsWebgpu()) {
  const { gpu } = navigator;
  deviceSuite(webgpuKit(gpu, { name: "webgpu", everything: true }));
  deviceSuite(webgpuKit(gpu, {
    ...{ name: "webgpu, smallest limits, poisoned", everything: false },
    ...{ options: { maxBindingBytes: 2 ** 20, plan: { workgroup: 256 } }, onBlock: poison },
  }));
} else {
  Deno.test.ignore("webgpu: the device suite (no adapter)", () => {});
}
