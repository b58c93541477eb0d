/** The device suite on two threads of Wasm, what is the Wasm device's own, and its threads. */

import { deviceSuite } from "../../device_suite.ts";
import { sharedWasmKit } from "../../wasm_kit.ts";

const { kit, closing } = await sharedWasmKit("wasm, 2 threads", {
  options: { threads: 2 },
  least: 32,
});
deviceSuite(kit);
closing("no guard zone was touched at the end");
await import("../../wasm_test.ts");
await import("../../wasm/threads_test.ts");
