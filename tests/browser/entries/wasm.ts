/**
 * The device suite on one thread of Wasm, which needs neither shared memory nor a worker. What may be asked of a pass beside its
 * numbers is left to two threads, which run the same kernels.
 */

import { handlingSuite, numberSuite } from "../../device_suite.ts";
import { wasmKit } from "../../wasm_kit.ts";

const kit = wasmKit("wasm, 1 thread", {});
numberSuite(kit);
handlingSuite(kit);
