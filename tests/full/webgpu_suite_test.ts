/** The device suite's numbers on this runtime's WebGPU, with all that the adapter has. Its other part is a file of its own. */

import { numberSuite } from "../device_suite.ts";
import { everything, webgpuSuite } from "../webgpu_suite.ts";

await webgpuSuite(everything, { suite: numberSuite, what: "the device suite's numbers" });
