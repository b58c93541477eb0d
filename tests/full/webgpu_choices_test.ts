/** What the plan may choose, each choice at many shapes, and a reduction in parts. */

import { inTier } from "../tier.ts";
import { choiceTests } from "../webgpu/choices.ts";
import { partTests } from "../webgpu/overlap.ts";
import { opener, testsWebgpu } from "../webgpu_kit.ts";

const kit = { name: "webgpu", tier: "full" } as const;
if (await testsWebgpu()) {
  inTier(kit, (kit) => {
    const opens = opener(navigator.gpu, kit);
    choiceTests(opens);
    partTests(opens);
  });
} else {
  Deno.test.ignore("webgpu: choices at length (no adapter)", () => {});
}
