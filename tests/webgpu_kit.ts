/** The WebGPU devices of this machine, as the suites see them. */

import type { DeviceKit } from "./kit.ts";
import { createDevice } from "../kernels/webgpu/device.ts";
import type { OnBlock } from "../kernels/webgpu/memory.ts";
import type { WebGpuArray, WebGpuDevice, WebGpuOptions } from "../kernels/webgpu_device.ts";

/** Whether the run promises this part: then its absence is a failure, elsewhere its tests are ignored. */
export function demanded(part: string): boolean {
  return (Deno.env.get("SYNCBN_DEMAND") ?? "").split(",").includes(part);
}

/**
 * Units in the last place that float32 arithmetic of WGSL may be away: a division may be off by 2.5, an inverse root by
 * 2, and each of the few products around them by half a unit of 2^-24; sums of the suites' lengths add one or two.
 */
const ULPS = 8;

/** How to open a handle for a test: its GPUDevice's limits, the handle's options, what looks into its memory. */
export interface Opening {
  readonly name: string;
  /** Ask for the adapter's limits and shader-f16, or take what every GPUDevice has. */
  readonly everything: boolean;
  readonly options?: WebGpuOptions;
  readonly onBlock?: (gpuDevice: GPUDevice) => OnBlock;
}

/** Opens a handle on a GPUDevice of its own. */
export async function open(
  gpu: GPU,
  { everything, options = {}, onBlock }: Omit<Opening, "name">,
): Promise<{ readonly device: WebGpuDevice; readonly close: () => Promise<void> }> {
  const adapter = await gpu.requestAdapter();
  if (!adapter) throw new Error("this machine has no WebGPU adapter");
  const { maxStorageBuffersPerShaderStage } = adapter.limits;
  const gpuDevice = await adapter.requestDevice(
    everything
      ? {
        requiredFeatures: adapter.features.has("shader-f16") ? ["shader-f16"] : [],
        requiredLimits: { maxStorageBuffersPerShaderStage },
      }
      : {},
  );
  const { device, settled } = createDevice(gpuDevice, options, onBlock?.(gpuDevice));
  const close = async () => {
    device[Symbol.dispose]();
    gpuDevice.destroy();
    await settled();
  };
  return { device, close };
}

/** A kit of such handles. */
export function webgpuKit(gpu: GPU, opening: Opening): DeviceKit<WebGpuArray> {
  return {
    name: opening.name,
    open: () => open(gpu, opening),
    ulps: ULPS,
    nonFinite: false,
    cases: 60,
  };
}

/** Fills every block that is handed out or given back with NaN, so that whoever reads what nobody wrote shows it. */
export function poison(gpuDevice: GPUDevice): OnBlock {
  return ({ buffer, bytes, purpose }) => {
    if (purpose !== "storage") return;
    gpuDevice.queue.writeBuffer(buffer, 0, new Uint8Array(bytes - bytes % 4).fill(0xff));
  };
}
