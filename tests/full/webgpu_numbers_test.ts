/** Numbers of WebGPU at many shapes, large ones and through windows. */

import { inTier } from "../tier.ts";
import { numberTests } from "../webgpu/numbers.ts";
import { opener, testsWebgpu } from "../webgpu_kit.ts";

const kit = { name: "webgpu", tier: "full" } as const;
if (await testsWebgpu()) {
  inTier(kit, (kit) => {
    const opens = opener(navigator.gpu, kit);
    numberTests(opens);
    opens.ending();
  });
} else {
  Deno.test.ignore("webgpu: numbers at length (no adapter)", () => {});
}
