/** The library's own parts on this runtime's WebGPU too. */

import { librarySuite } from "../library_suite.ts";
import { webgpuSuite } from "../webgpu_suite.ts";

await webgpuSuite(
  () => ({ name: "webgpu", tier: "full", everything: true }),
  { suite: librarySuite, what: "the library's tests" },
);
