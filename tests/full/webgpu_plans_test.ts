/** What the plan may choose, each choice at many shapes. */

import { inTier } from "../tier.ts";
import { planTests } from "../webgpu/plans.ts";
import { opener, testsWebgpu } from "../webgpu_kit.ts";

const kit = { name: "webgpu", tier: "full" } as const;
if (await testsWebgpu()) {
  inTier(kit, (kit) => planTests(opener(navigator.gpu, kit)));
} else {
  Deno.test.ignore("webgpu: plans at length (no adapter)", () => {});
}
