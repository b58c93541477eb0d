/** What is WebGPU's own: for every implementation of it. */

import { type Opener, spellingOf } from "../webgpu_kit.ts";
import { bindingTests } from "./bindings.ts";
import { gpuEffectTests } from "./effects.ts";
import { failureTests } from "./failures.ts";
import { numberTests } from "./numbers.ts";
import { overlapTests } from "./overlap.ts";
import { planTests } from "./plans.ts";
import { shaderTests } from "./shaders.ts";

/** Registers the tests. */
export async function webgpuTests(opener: Opener): Promise<void> {
  shaderTests(opener, await spellingOf(opener.gpu));
  gpuEffectTests(opener);
  failureTests(opener);
  bindingTests(opener);
  numberTests(opener);
  planTests(opener);
  overlapTests(opener);
}
