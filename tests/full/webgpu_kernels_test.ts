/** Every kernel compiled, masks in every layout, and long training loops counted. */

import { inTier } from "../tier.ts";
import { gpuEffectTests } from "../webgpu/effects.ts";
import { maskTests } from "../webgpu/masks.ts";
import { shaderTests } from "../webgpu/shaders.ts";
import { opener, testsWebgpu } from "../webgpu_kit.ts";

const kit = { name: "webgpu", tier: "full" } as const;
if (await testsWebgpu()) {
  inTier(kit, (kit) => {
    const opens = opener(navigator.gpu, kit);
    shaderTests(opens);
    maskTests(opens);
    gpuEffectTests(opens);
  });
} else {
  Deno.test.ignore("webgpu: kernels and effects at length (no adapter)", () => {});
}
