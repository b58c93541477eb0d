/**
 * The device suite with what every GPUDevice has, windows of 1 MiB, single elements, and memory that is full of NaN wherever
 * nobody has written.
 */

import { FORCED, poison } from "../webgpu_kit.ts";
import { webgpuSuite } from "../webgpu_suite.ts";

await webgpuSuite(() => ({
  ...{ name: "webgpu, smallest limits, single elements, poisoned", tier: "full" },
  ...{ everything: false, giants: true },
  ...{ options: { maxBindingBytes: 2 ** 20, plan: FORCED.single }, onBlock: poison },
}));
