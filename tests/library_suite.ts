/** What the library does on every device alike: once on one that computes at once, once on one that has a queue. */

import type { DeviceKit } from "./kit.ts";
import { checkpointSuite } from "./suites/checkpoints.ts";
import { conventionSuite } from "./suites/conventions.ts";
import { conversionSuite } from "./suites/conversion.ts";
import { dataParallelSuite } from "./suites/data_parallel.ts";
import { errorSuite } from "./suites/errors.ts";
import { layerSuite } from "./suites/layers.ts";
import { ownershipSuite } from "./suites/ownership.ts";
import { secondOrderCallSuite } from "./suites/second_order_calls.ts";
import { inTier } from "./tier.ts";

/**
 * Registers the tests of the library's own parts: data parallelism, layers, their conversion, checkpoints and folding,
 * ownership, errors.
 *
 * @param kit a device to run them on
 */
export function librarySuite<A>(kit: DeviceKit<A>): void {
  inTier(kit, (kit) => {
    dataParallelSuite(kit);
    layerSuite(kit);
    conversionSuite(kit);
    checkpointSuite(kit);
    conventionSuite(kit);
    ownershipSuite(kit);
    errorSuite(kit);
    secondOrderCallSuite(kit);
  });
}
