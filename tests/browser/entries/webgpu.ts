/** The device suite on the browser's WebGPU, and what is WebGPU's own. */

import "../../webgpu_suite_test.ts";
import "../../webgpu_test.ts";
