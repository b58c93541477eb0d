/**
 * What is WebGPU's own, for every implementation of it; but for what compiles hundreds of kernels: shaders.ts, masks.ts.
 */

import type { Opener } from "../webgpu_kit.ts";
import { bindingTests } from "./bindings.ts";
import { digitTests } from "./digits.ts";
import { gpuEffectTests } from "./effects.ts";
import { failureTests } from "./failures.ts";
import { numberTests } from "./numbers.ts";
import { planTests } from "./plans.ts";

/** Registers the tests. */
export function webgpuTests(opener: Opener): void {
  gpuEffectTests(opener);
  failureTests(opener);
  bindingTests(opener);
  numberTests(opener);
  digitTests(opener);
  planTests(opener);
  opener.ending();
}
