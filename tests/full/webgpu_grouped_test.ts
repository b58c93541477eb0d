/** The device suite in groups of channels and windows of 1 MiB, with subgroups where they are granted. */

import assert from "node:assert/strict";
import { demanded } from "../demanded.ts";
import { FORCED, spellingOf, testsWebgpu } from "../webgpu_kit.ts";
import { webgpuSuite } from "../webgpu_suite.ts";

const subgroups = await testsWebgpu() ? await spellingOf(navigator.gpu) : "none";
await webgpuSuite(() => ({
  name: `webgpu, groups of channels${subgroups === "none" ? "" : ", subgroups"}`,
  ...{ tier: "full", everything: true, cases: 20, giants: true },
  features: subgroups === "none" ? [] : ["subgroups" as GPUFeatureName],
  options: { maxBindingBytes: 2 ** 20, plan: { ...FORCED.grouped, subgroups } },
}));
Deno.test({
  name: "webgpu, subgroups: granted, and compiled by one of the spellings",
  ignore: subgroups === "none" && !demanded("webgpu"), // Mesa's software adapter has them.
  fn: () => assert.notEqual(subgroups, "none"),
});
