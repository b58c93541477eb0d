/** The device suite's other part on this runtime's WebGPU, as its numbers are put to it. */

import { optionSuite } from "./device_suite.ts";
import { poison } from "./webgpu_kit.ts";
import { webgpuSuite } from "./webgpu_suite.ts";

await webgpuSuite(
  () => ({ name: "webgpu, float32", everything: false, cases: 8, onBlock: poison }),
  { suite: optionSuite, what: "the device suite's options" },
);
