/** The exact Wasm device: the bits of the exact reference device, for any layout, part and number of threads. */

import assert from "node:assert/strict";
import fc from "fast-check";
import * as bn from "../../mod.ts";
import { createDevice } from "../../kernels/wasm/device.ts";
import { assertSame, exactAlone, exactRank } from "./law.ts";
import { exactScenarios } from "./scenario.ts";

const SCENARIOS = { numRuns: 300, seed: 2031 };

Deno.test("exact Wasm: 300 partitions have the bits of one rank on the reference device", async () => {
  await using device = await createDevice({ exact: true });
  const property = fc.asyncProperty(exactScenarios(), async (scenario) => {
    const { ranks } = scenario.partition;
    const parts = await bn.runRanks(ranks, (group) => exactRank(device, group, scenario));
    assertSame(parts, await exactAlone(scenario));
  });
  await fc.assert(property, SCENARIOS);
});
