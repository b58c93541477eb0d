/**
 * The device suite on this runtime's WebGPU with what every GPUDevice has, which is no float16: half as many kernels to
 * compile, which is what a software adapter spends its time on. The other kits are in full/.
 */

import { webgpuSuite } from "./webgpu_suite.ts";

await webgpuSuite(() => ({ name: "webgpu, float32", everything: false, cases: 8 }));
