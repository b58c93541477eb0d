/** Every kernel compiled, and long training loops counted. */

import { inTier, isRun } from "../tier.ts";
import { gpuEffectTests } from "../webgpu/effects.ts";
import { shaderTests } from "../webgpu/shaders.ts";
import { opener, spellingOf, testsWebgpu } from "../webgpu_kit.ts";

const kit = { name: "webgpu", tier: "full" } as const;
if (await testsWebgpu()) {
  const spelling = isRun(kit.tier) ? await spellingOf(navigator.gpu) : "none";
  inTier(kit, (kit) => {
    const opens = opener(navigator.gpu, kit);
    shaderTests(opens, spelling);
    gpuEffectTests(opens);
  });
} else {
  Deno.test.ignore("webgpu: kernels and effects at length (no adapter)", () => {});
}
