/** Every kernel compiled, masks in every layout, and long training loops counted. */

import { inTier } from "../tier.ts";
import { trainingLoopTest } from "../webgpu/effects.ts";
import { maskTests } from "../webgpu/masks.ts";
import { shaderTests } from "../webgpu/shaders.ts";
import { opener, testsWebgpu } from "../webgpu_kit.ts";

const kit = { name: "webgpu", tier: "full" } as const;
if (await testsWebgpu()) {
  inTier(kit, (kit) => {
    const opens = opener(navigator.gpu, kit);
    shaderTests(opens);
    maskTests(opens);
    trainingLoopTest(opens);
    opens.ending();
  });
} else {
  Deno.test.ignore("webgpu: kernels and loops at length (no adapter)", () => {});
}
