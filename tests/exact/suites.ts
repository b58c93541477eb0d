/** Exact devices do what all devices do: suites of the others against float64 and PyTorch, in float32 arithmetic. */

import { type ReferenceArray, referenceDevice } from "../../mod.ts";
import { type WasmArray, wasmDevice } from "../../kernels/wasm_device.ts";
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

/** The law and PyTorch's numbers. */
export function exactLaw<A>(kit: DeviceKit<A>): void {
  inTier(kit, (kit) => {
    deviceLaw(kit);
    goldenSuite(kit);
  });
}

/** What all devices do alike. */
export function exactAlike<A>(kit: DeviceKit<A>): void {
  inTier(kit, (kit) => {
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

export const exactReference: DeviceKit<ReferenceArray> = {
  ...common,
  name: "exact reference",
  open: () => {
    const device = referenceDevice({ exact: true });
    return Promise.resolve({ device, close: () => Promise.resolve() });
  },
};

export const exactWasm: DeviceKit<WasmArray> = {
  ...common,
  name: "exact Wasm",
  open: async () => {
    const device = await wasmDevice({ exact: true });
    return { device, close: () => Promise.resolve(device[Symbol.dispose]()) };
  },
};
