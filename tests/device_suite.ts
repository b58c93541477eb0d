/** Everything that a device must pass, ours or somebody else's: call it in a test file with the device's kit. */

import type { DeviceKit } from "./kit.ts";
import { adversarialSuite } from "./suites/adversarial.ts";
import { branchSuite } from "./suites/branches.ts";
import { checkpointSuite } from "./suites/checkpoints.ts";
import { conventionSuite } from "./suites/conventions.ts";
import { conversionSuite } from "./suites/conversion.ts";
import { dataParallelSuite } from "./suites/data_parallel.ts";
import { derivativeSuite } from "./suites/derivatives.ts";
import { donationSuite } from "./suites/donation.ts";
import { effectSuite } from "./suites/effects.ts";
import { errorSuite } from "./suites/errors.ts";
import { goldenSuite } from "./suites/golden.ts";
import { layerSuite } from "./suites/layers.ts";
import { deviceLaw } from "./suites/law.ts";
import { ownershipSuite } from "./suites/ownership.ts";
import { peerSuite } from "./suites/peers.ts";
import { pytorchSuite } from "./suites/pytorch.ts";
import { passSuite } from "./suites/passes.ts";
import { stateSuite } from "./suites/states.ts";
import { replacingSuite } from "./suites/replacing.ts";
import { statisticsSuite } from "./suites/statistics.ts";

/**
 * Registers all tests of a device: the law, PyTorch's numbers, PyTorch's own tests, derivatives, where peers go wrong,
 * special values, states, effects, parallel branches, data parallelism, layers, their conversion, checkpoints and folding,
 * ownership, donation, errors.
 *
 * @param kit how to open the device, and how exact it is
 */
export function deviceSuite<A>(kit: DeviceKit<A>): void {
  deviceLaw(kit);
  goldenSuite(kit);
  pytorchSuite(kit);
  derivativeSuite(kit);
  peerSuite(kit);
  adversarialSuite(kit);
  stateSuite(kit);
  statisticsSuite(kit);
  passSuite(kit);
  replacingSuite(kit);
  effectSuite(kit);
  branchSuite(kit);
  dataParallelSuite(kit);
  layerSuite(kit);
  conversionSuite(kit);
  checkpointSuite(kit);
  conventionSuite(kit);
  ownershipSuite(kit);
  donationSuite(kit);
  errorSuite(kit);
}
