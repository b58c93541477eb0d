/**
 * The device suite on this runtime's WebGPU, three times, with different choices of the plan: with all that the adapter has; with
 * what every GPUDevice has, windows of 1 MiB and memory that is full of NaN wherever nobody has written; in groups of channels.
 */

import assert from "node:assert/strict";
import { deviceSuite } from "./device_suite.ts";
import { demanded } from "./demanded.ts";
import { FORCED, poison, sharedKit, spellingOf, testsWebgpu, webgpuKit } from "./webgpu_kit.ts";

if (await testsWebgpu()) {
  const { gpu } = navigator;
  deviceSuite(webgpuKit(gpu, { name: "webgpu", everything: true }));
  deviceSuite(webgpuKit(gpu, {
    ...{ name: "webgpu, smallest limits, single elements, poisoned", everything: false },
    ...{ options: { maxBindingBytes: 2 ** 20, plan: FORCED.single }, onBlock: poison },
  }));
  const subgroups = await spellingOf(gpu);
  const name = `webgpu, groups of channels${subgroups === "none" ? "" : ", subgroups"}`;
  const { kit, closing } = await sharedKit(gpu, {
    ...{ name, everything: true, cases: 20 },
    features: subgroups === "none" ? [] : ["subgroups" as GPUFeatureName],
    options: { maxBindingBytes: 2 ** 20, plan: { ...FORCED.grouped, subgroups } },
  });
  deviceSuite(kit);
  Deno.test(`${name}: the handle closes`, closing);
  Deno.test({
    name: "webgpu, subgroups: granted, and compiled by one of the spellings",
    ignore: subgroups === "none" && !demanded("webgpu"), // Mesa's software adapter has them.
    fn: () => assert.notEqual(subgroups, "none"),
  });
} else {
  Deno.test.ignore("webgpu: the device suite (no adapter)", () => {});
}
