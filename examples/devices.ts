/**
 * Where the demo computes.
 *
 * @module
 */

import { type OwnedWebGpuDevice, requestWebGpuDevice } from "../kernels/webgpu_device.ts";
import { DeviceError, referenceDevice } from "../mod.ts";
import type { DeviceName } from "./flags.ts";
import { hostLayers } from "./host_layers.ts";
import type { Layers } from "./layers.ts";
import { startError } from "./start_error.ts";
import { webgpuLayers } from "./webgpu_layers.ts";

/**
 * Opens the GPU that was chosen.
 *
 * @param name any adapter's, with `"auto"` a hardware one's, with `"cpu"` none
 * @returns the device, for the caller to dispose, or null where there is none
 */
export async function openGpu(name: DeviceName): Promise<OwnedWebGpuDevice | null> {
  if (name === "cpu") return null;
  try {
    const gpu = await requestWebGpuDevice();
    if (name === "webgpu" || !gpu.info.isFallbackAdapter) return gpu;
    await gpu[Symbol.asyncDispose]();
    return null;
  } catch (error) {
    if (error instanceof DeviceError && error.code === "unsupported") return null;
    throw error;
  }
}

/**
 * Makes the layers on a GPU, or on the CPU, for as long as a body takes.
 *
 * @param gpu the GPU, or null for the CPU
 * @param body what to do on them
 * @returns what the body returns
 */
export async function onLayers<R>(
  gpu: OwnedWebGpuDevice | null,
  body: <V, A>(layers: Layers<V, A>) => Promise<R>,
): Promise<R> {
  if (gpu === null) return await body(hostLayers(referenceDevice()));
  using layers = webgpuLayers(gpu);
  return await body(layers);
}

/**
 * Says that a GPU is not there.
 *
 * @param who has none, in a group
 * @returns the error
 */
export function noAdapter(who?: string): Error {
  const [where, current] = who ? [" on every rank", `${who} has none`] : ["", "there is none"];
  return startError(`--device webgpu must find an adapter${where}: ${current} (see --help)`);
}
