/** The adapter that is measured. */

import { requestWebGpuDevice, type WebGpuDevice } from "../../kernels/webgpu_device.ts";
import { loadDawn } from "../../tests/load_dawn.ts";
import { refuse } from "../command.ts";

/** Dawn, or the runtime's own WebGPU. */
export async function gpuAtHand(dawn: boolean): Promise<GPU> {
  return dawn ? await loadDawn() : navigator.gpu;
}

/** Opens a device with the GPU's clock, if it has one. */
export async function openAdapter(dawn: boolean): Promise<WebGpuDevice> {
  const gpu = await gpuAtHand(dawn);
  const adapter = await gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) refuse("Cannot measure as there must be a WebGPU adapter: none was found");
  const clock = "timestamp-query";
  const requiredFeatures = adapter.features.has(clock) ? [clock] as const : [];
  return await requestWebGpuDevice({ gpu, requiredFeatures });
}
