/** Everything that a device must pass, ours or somebody else's: call it in a test file with the device's kit. */

import type { DeviceKit } from "./kit.ts";
import { activationSuite } from "./suites/activations.ts";
import { adversarialSuite } from "./suites/adversarial.ts";
import { branchSuite } from "./suites/branches.ts";
import { derivativeSuite } from "./suites/derivatives.ts";
import { donationSuite } from "./suites/donation.ts";
import { effectSuite } from "./suites/effects.ts";
import { ghostSuite } from "./suites/ghost.ts";
import { goldenSuite } from "./suites/golden.ts";
import { secondOrderGoldenSuite } from "./suites/golden_second_order.ts";
import { deviceLaw } from "./suites/law.ts";
import { modulateSuite } from "./suites/modulate.ts";
import { peerSuite } from "./suites/peers.ts";
import { pytorchSuite } from "./suites/pytorch.ts";
import { passSuite } from "./suites/passes.ts";
import { secondOrderSuite } from "./suites/second_order.ts";
import { secondOrderWeightSuite } from "./suites/second_order_weights.ts";
import { stateSuite } from "./suites/states.ts";
import { renormSuite } from "./suites/renorm.ts";
import { replacingSuite } from "./suites/replacing.ts";
import { rulesSuite } from "./suites/rules.ts";
import { statisticsSuite } from "./suites/statistics.ts";
import { weightSuite } from "./suites/weights.ts";
import { weightLaw } from "./suites/weights_law.ts";
import { weightWaySuite } from "./suites/weights_ways.ts";
import { weightsGoldenSuite } from "./suites/weights_golden.ts";
import { inTier } from "./tier.ts";

/**
 * Registers all tests of a device: the law, PyTorch's numbers, PyTorch's own tests, derivatives, where peers go wrong,
 * special values, states, effects, parallel branches, donation, and all that can be asked of a pass. What is the same on
 * every device stands in {@linkcode librarySuite}.
 *
 * @param kit how to open the device, how exact it is, and which runs it is part of
 */
export function deviceSuite<A>(kit: DeviceKit<A>): void {
  numberSuite(kit);
  optionSuite(kit);
}

/** The part of {@linkcode deviceSuite} that compares ordinary passes with others' numbers. */
export function numberSuite<A>(kit: DeviceKit<A>): void {
  inTier(kit, (kit) => {
    deviceLaw(kit);
    goldenSuite(kit);
    pytorchSuite(kit);
    peerSuite(kit);
    stateSuite(kit);
    statisticsSuite(kit);
  });
}

/** The other part: what else can be asked of a pass, and what must happen around it. */
export function optionSuite<A>(kit: DeviceKit<A>): void {
  handlingSuite(kit);
  inTier(kit, (kit) => {
    modulateSuite(kit);
    renormSuite(kit);
    activationSuite(kit);
    weightLaw(kit);
    weightSuite(kit);
    weightsGoldenSuite(kit);
    weightWaySuite(kit);
    secondOrderSuite(kit);
    secondOrderWeightSuite(kit);
    secondOrderGoldenSuite(kit);
  });
}

/** Of {@linkcode optionSuite} what any pass must do whatever else is asked of it. */
export function handlingSuite<A>(kit: DeviceKit<A>): void {
  inTier(kit, (kit) => {
    derivativeSuite(kit);
    adversarialSuite(kit);
    rulesSuite(kit);
    ghostSuite(kit);
    passSuite(kit);
    replacingSuite(kit);
    effectSuite(kit);
    branchSuite(kit);
    donationSuite(kit);
  });
}
