/** What is WebGPU's own: numbers at every shape, effects on the GPUDevice, failures, bindings, shaders. */

import { bindingTests } from "./webgpu/bindings.ts";
import { gpuEffectTests } from "./webgpu/effects.ts";
import { failureTests } from "./webgpu/failures.ts";
import { numberTests } from "./webgpu/numbers.ts";
import { overlapTests } from "./webgpu/overlap.ts";
import { planTests } from "./webgpu/plans.ts";
import { shaderTests } from "./webgpu/shaders.ts";
import { opener, testsWebgpu } from "./webgpu_kit.ts";

if (await testsWebgpu()) {
  const { gpu } = navigator;
  const opens = opener(gpu, "webgpu", true);
  for (
    const tests of [
      shaderTests,
      gpuEffectTests,
      failureTests,
      bindingTests,
      numberTests,
      planTests,
      overlapTests,
    ]
  ) {
    await tests(opens);
  }
} else {
  Deno.test.ignore("webgpu: numbers, effects, failures, bindings, shaders (no adapter)", () => {});
}
