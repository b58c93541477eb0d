/** The device suite on one thread of Wasm, which needs neither shared memory nor a worker. */

import { deviceSuite } from "../../device_suite.ts";
import { wasmKit } from "../../wasm_kit.ts";

deviceSuite(wasmKit("wasm, 1 thread", {}));
