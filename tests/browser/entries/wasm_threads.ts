/**
 * The device suite on two threads of Wasm, what is the Wasm device's own, and its threads. At other shapes the kernels are not
 * compared with the reference device once more: that an engine computes the same bits as every other is what digests show.
 */

import { deviceSuite } from "../../device_suite.ts";
import { allocationTests } from "../../wasm/allocation.ts";
import { exactnessTests } from "../../wasm/exactness.ts";
import { exhaustionTests } from "../../wasm/exhaustion.ts";
import { guardTests } from "../../wasm/guards.ts";
import { halfTests } from "../../wasm/halves.ts";
import { handleTests } from "../../wasm/handles.ts";
import { sharedWasmKit } from "../../wasm_kit.ts";
import { leaveOut } from "../inside/deno.ts";

const opening = { options: { threads: 2 }, least: 32 };
const { kit, closing } = await sharedWasmKit("wasm, 2 threads", opening);
deviceSuite(kit);
closing("no guard zone was touched at the end");
guardTests();
allocationTests();
exhaustionTests();
handleTests();
halfTests();
exactnessTests();
await import("../../wasm/threads_test.ts");

leaveOut({
  "wasm: where memory is short the arrays that are alive are counted, and those that were dropped":
    "it runs a program",
  "wasm: the time of blocks of ever new sizes does not grow with the square of their number":
    "it times what is the same everywhere, beside another browser",
  "a helper that was terminated is missed at the next call":
    "a browser tells nobody of terminate(): the deadline does",
});
