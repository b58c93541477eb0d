/** What the plan may choose, each choice at many shapes. */

import { inTier } from "../tier.ts";
import { choiceTests } from "../webgpu/choices.ts";
import { opener, testsWebgpu } from "../webgpu_kit.ts";

const kit = { name: "webgpu", tier: "full" } as const;
if (await testsWebgpu()) {
  inTier(kit, (kit) => choiceTests(opener(navigator.gpu, kit)));
} else {
  Deno.test.ignore("webgpu: choices at length (no adapter)", () => {});
}
