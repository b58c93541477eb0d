/** The Wasm kernels on batches of more than a MiB. */

import { inTier } from "../tier.ts";
import { largeParityTests } from "../wasm/parity.ts";

inTier({ name: "wasm", tier: "full" }, largeParityTests);
