/**
 * The device suite's numbers on this runtime's WebGPU with what every GPUDevice has, which is no float16: half as many kernels
 * to compile, which is what a software adapter spends its time on. Memory is full of NaN wherever nobody has written. The
 * suite's other part is a file of its own, so that two cores share them.
 */

import { numberSuite } from "./device_suite.ts";
import { poison } from "./webgpu_kit.ts";
import { webgpuSuite } from "./webgpu_suite.ts";

await webgpuSuite(
  () => ({ name: "webgpu, float32", everything: false, cases: 8, onBlock: poison }),
  { suite: numberSuite, what: "the device suite's numbers" },
);
