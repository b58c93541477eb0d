/** Everything that a kind of process group must pass: call it in a test file with the group's kit. */

import { exactGroupLaw } from "./exact/law.ts";
import type { GroupKit } from "./kit.ts";
import { blockingSuite } from "./suites/blocking.ts";
import { dataParallelOverGroup } from "./suites/data_parallel_groups.ts";
import { groupSuite as collectives } from "./suites/groups.ts";
import { groupLaw } from "./suites/law.ts";
import { pytorchExamplesOverGroup } from "./suites/pytorch_examples.ts";
import { secondOrderOverGroup } from "./suites/second_order_groups.ts";
import { inTier } from "./tier.ts";

/**
 * Registers all tests of a kind of group: its collectives, its failures, the law, also to the last bit, data parallelism and PyTorch's page
 * over its ranks.
 *
 * @param kit how to run a task on ranks of this kind
 */
export function groupSuite(kit: GroupKit): void {
  inTier(kit, (kit) => {
    collectives(kit);
    groupLaw(kit);
    exactGroupLaw(kit);
    secondOrderOverGroup(kit);
    if (kit.reduceOnly) return;
    dataParallelOverGroup(kit);
    pytorchExamplesOverGroup(kit);
    if (kit.blocks) blockingSuite(kit);
  });
}
