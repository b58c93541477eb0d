/** The device suite on one build of the Wasm kernels, on one thread and on two. */

import type { Build } from "../kernels/wasm/binary.ts";
import { deviceSuite } from "./device_suite.ts";
import { sharedWasmKit, wasmKit } from "./wasm_kit.ts";

/** Registers it. Giants are put to two threads, which share them out. */
export async function wasmSuite(build: Build): Promise<void> {
  deviceSuite(wasmKit(`wasm, ${build}, 1 thread`, { build }));
  const name = `wasm, ${build}, 2 threads`;
  const { kit, closing } = await sharedWasmKit(name, { build, options: { threads: 2 }, least: 32 });
  deviceSuite({ ...kit, giants: true });
  closing("no guard zone was touched at the end");
}
