/** The device suite on both builds of the Wasm kernels, on one thread and on two that share even small tensors. */

import { deviceSuite } from "./device_suite.ts";
import { sharedWasmKit, wasmKit } from "./wasm_kit.ts";

for (const build of ["relaxed", "simd128"] as const) {
  deviceSuite(wasmKit(`wasm, ${build}, 1 thread`, { build }));
  const options = { threads: 2 };
  const { kit, close } = await sharedWasmKit(`wasm, ${build}, 2 threads`, {
    build,
    options,
    least: 32,
  });
  deviceSuite(kit);
  Deno.test(`wasm, ${build}, 2 threads: no guard zone was touched at the end`, close);
}
