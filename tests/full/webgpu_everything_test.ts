/** The device suite on this runtime's WebGPU, with all that the adapter has. */

import { webgpuSuite } from "../webgpu_suite.ts";

await webgpuSuite(() => ({ name: "webgpu", tier: "full", everything: true, giants: true }));
