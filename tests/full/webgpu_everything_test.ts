/** The device suite on this runtime's WebGPU, with all that the adapter has, and large tensors in windows of 1 MiB. */

import { webgpuSuite } from "../webgpu_suite.ts";

await webgpuSuite(() => ({
  ...{ name: "webgpu", tier: "full", everything: true, giants: true },
  ...{ cases: 60, ways: 6 },
  options: { maxBindingBytes: 2 ** 20 },
}));
