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

/** In every run the law and PyTorch's numbers on Wasm: the reference has its bits, and the ordinary devices do the rest alike. */
function exactSuite<A>(kit: DeviceKit<A>): void {
  inTier(kit, (kit) => {
    deviceLaw(kit);
    goldenSuite(kit);
  });
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
  tier: "full",
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
