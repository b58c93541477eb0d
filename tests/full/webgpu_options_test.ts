/** The device suite's other part on this runtime's WebGPU, as its numbers are put to it. */

import { optionSuite } from "../device_suite.ts";
import { everything, webgpuSuite } from "../webgpu_suite.ts";

await webgpuSuite(everything, { suite: optionSuite, what: "the device suite's options" });
