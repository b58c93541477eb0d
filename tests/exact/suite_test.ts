/** Exact devices do what all devices do: suites of the others against float64 and PyTorch, in float32 arithmetic. */

import { referenceDevice } from "../../mod.ts";
import { wasmDevice } from "../../kernels/wasm_device.ts";
import type { DeviceKit } from "../kit.ts";
import { adversarialSuite } from "../suites/adversarial.ts";
import { branchSuite } from "../suites/branches.ts";
import { derivativeSuite } from "../suites/derivatives.ts";
import { donationSuite } from "../suites/donation.ts";
import { effectSuite } from "../suites/effects.ts";
import { goldenSuite } from "../suites/golden.ts";
import { deviceLaw } from "../suites/law.ts";
import { peerSuite } from "../suites/peers.ts";
import { stateSuite } from "../suites/states.ts";
import { inTier } from "../tier.ts";

function exactSuite<A>(kit: DeviceKit<A>): void {
  deviceLaw(kit);
  goldenSuite(kit);
  // What the ordinary devices do in the same words is told of exact ones in the full tier.
  inTier({ ...kit, tier: "full" }, (kit) => {
    adversarialSuite(kit);
    branchSuite(kit);
    derivativeSuite(kit);
    donationSuite(kit);
    effectSuite(kit);
    peerSuite(kit);
    stateSuite(kit);
  });
}

const common = {
  ...{ ulps: 4, nonFinite: true, subnormals: true, arithmetic: "float32" } as const,
  deviations: "float32",
} as const;

exactSuite({
  ...common,
  name: "exact reference",
  open: () => {
    const device = referenceDevice({ exact: true });
    return Promise.resolve({ device, close: () => Promise.resolve() });
  },
});

exactSuite({
  ...common,
  name: "exact Wasm",
  open: async () => {
    const device = await wasmDevice({ exact: true });
    return { device, close: () => Promise.resolve(device[Symbol.dispose]()) };
  },
});
