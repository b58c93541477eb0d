/** Numbers of WebGPU at many shapes, large ones and through windows. */

import { inTier } from "../tier.ts";
import { numberTests } from "../webgpu/numbers.ts";
import { opener, testsWebgpu } from "../webgpu_kit.ts";

const kit = { name: "webgpu", tier: "full" } as const;
if (await testsWebgpu()) {
  inTier(kit, (kit) => numberTests(opener(navigator.gpu, kit)));
} else {
  Deno.test.ignore("webgpu: numbers at length (no adapter)", () => {});
}
