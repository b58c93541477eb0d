/** Exact devices do what all devices do: suites of the others against float64 and PyTorch, in float32 arithmetic. */

import { referenceDevice } from "../../mod.ts";
import { wasmDevice } from "../../kernels/wasm_device.ts";
import type { DeviceKit } from "../kit.ts";
import { deviceLaw } from "../suites/law.ts";
import { donationSuite } from "../suites/donation.ts";
import { goldenSuite } from "../suites/golden.ts";

function exactSuite<A>(kit: DeviceKit<A>): void {
  deviceLaw(kit);
  goldenSuite(kit);
  donationSuite(kit);
}

const common = { ulps: 4, nonFinite: true, subnormals: true, arithmetic: "float32" } as const;

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
