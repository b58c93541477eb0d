/** What is WebGPU's own: numbers at every shape, effects on the GPUDevice, failures, bindings, shaders. */

import { webgpuTests } from "./webgpu/all.ts";
import { opener, testsWebgpu } from "./webgpu_kit.ts";

if (await testsWebgpu()) await webgpuTests(opener(navigator.gpu, "webgpu", true));
else {
  Deno.test.ignore("webgpu: numbers, effects, failures, bindings, shaders (no adapter)", () => {});
}
