/** The library in Node 20, 22 and 24, whichever Node the machine itself has. */

import assert from "node:assert/strict";
import { demanded } from "../demanded.ts";
import { DAWN } from "../load_dawn.ts";
import { bundleSuites, inFolder, link, nodePackages, runSuites } from "../node/node.ts";
import { isRun } from "../tier.ts";

/** Chromium's software adapter, where no other is named. */
const SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json";
/** The oldest is tried with everything. */
const EVERYTHING = "node20";

async function vulkan(): Promise<string | undefined> {
  const named = Deno.env.get("VK_ICD_FILENAMES");
  if (named) return named;
  return await Deno.stat(SWIFTSHADER).then(() => SWIFTSHADER, () => undefined);
}

async function testNodes(t: Deno.TestContext, folder: string): Promise<void> {
  const driver = await vulkan();
  await link(folder, { ...nodePackages(), ...(driver ? { webgpu: DAWN } : {}) });
  const suites = `${folder}/suites`;
  await bundleSuites(suites);
  const dawn = driver && `${folder}/node_modules/webgpu/index.js`;
  const env: Record<string, string> = driver ? { VK_ICD_FILENAMES: driver } : {};
  for (const name of Object.keys(nodePackages())) {
    const node = `${folder}/node_modules/${name}/bin/node`;
    const plan = { everything: name === EVERYTHING, dawn };
    await t.step(name, (t) => runSuites(t, node, suites, plan, env));
  }
  await t.step({
    name: "WebGPU by Dawn in all of them",
    ignore: !dawn && !demanded("webgpu"),
    fn: () => assert(dawn, "this run demands WebGPU, and no driver of Vulkan is named or known"),
  });
}

if (isRun("full")) {
  Deno.test({
    name: "node: groups, Wasm and WebGPU in Node 20, 22 and 24",
    fn: (t) => inFolder((folder) => testNodes(t, folder)),
  });
} else Deno.test.ignore("node: 1 test left to the full tier", () => {});
