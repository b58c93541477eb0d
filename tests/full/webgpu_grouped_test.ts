/** The device suite in groups of channels and windows of 1 MiB, with subgroups where they are granted. */

import assert from "node:assert/strict";
import { demanded } from "../demanded.ts";
import { register } from "../kit.ts";
import { inTier, isRun } from "../tier.ts";
import { FORCED, spellingOf, testsWebgpu } from "../webgpu_kit.ts";
import { webgpuSuite } from "../webgpu_suite.ts";

const tested = isRun("full") && await testsWebgpu();
const subgroups = tested ? await spellingOf(navigator.gpu) : "none";
await webgpuSuite(() => ({
  name: `webgpu, groups of channels${subgroups === "none" ? "" : ", subgroups"}`,
  ...{ tier: "full", everything: true, cases: 20, giants: true },
  features: subgroups === "none" ? [] : ["subgroups" as GPUFeatureName],
  options: { maxBindingBytes: 2 ** 20, plan: { ...FORCED.grouped, subgroups } },
}));
inTier({ name: "webgpu, subgroups", tier: "full" }, (kit) => {
  const what = "granted, and compiled by one of the spellings";
  // Mesa's software adapter has them; another one may not.
  if (tested && subgroups === "none" && !demanded("webgpu")) {
    return Deno.test.ignore(`${kit.name}: ${what} (the adapter has none)`, () => {});
  }
  register(kit, what, () => assert.notEqual(subgroups, "none"));
});
