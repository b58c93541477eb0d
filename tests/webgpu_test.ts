/** What is WebGPU's own: numbers, effects on the GPUDevice, failures, bindings; at length in full/. */

import { webgpuTests } from "./webgpu/all.ts";
import { opener, testsWebgpu } from "./webgpu_kit.ts";

if (await testsWebgpu()) webgpuTests(opener(navigator.gpu, { name: "webgpu" }));
else {
  Deno.test.ignore("webgpu: numbers, effects, failures, bindings (no adapter)", () => {});
}
