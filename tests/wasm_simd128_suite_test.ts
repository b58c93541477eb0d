/** The device suite on the Wasm kernels with SIMD alone, on one thread and on two that share even small tensors. */

import { wasmSuite } from "./wasm_suite.ts";

await wasmSuite("simd128");
