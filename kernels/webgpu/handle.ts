/**
 * The handle on a GPUDevice that users hold, and its options. Types only.
 *
 * @module
 */

import type { Device, DeviceInfo } from "../../lib/device.ts";
import type { WebGpuArray } from "./arrays.ts";
import type { ExplainOptions, Plan } from "./explain.ts";
import type { Choices } from "./choices.ts";

/** What a WebGPU device says of itself. */
export interface WebGpuInfo extends DeviceInfo {
  /** Whether the adapter is software: right numbers, no speed. */
  readonly isFallbackAdapter: boolean;
}

/**
 * A device on a `GPUDevice`. To dispose it gives back everything that it allocated; the GPUDevice stays as it is.
 */
export interface WebGpuDevice extends Device<WebGpuArray>, Disposable {
  /** What the device says of itself. */
  readonly info: WebGpuInfo;
  /** Tells how tensors of a shape would be worked on; `explain` does the same. */
  readonly explain: (shape: readonly number[], options?: ExplainOptions) => Plan;
  /** Where kernels of your own can share its buffers and its queue. */
  readonly gpuDevice: GPUDevice;
}

/** Options of `webgpuDevice`. */
export interface WebGpuOptions {
  /**
   * Bytes that a storage binding holds at most, 65,536 or more; the GPUDevice's own limit by default. Larger tensors are
   * processed in windows.
   */
  readonly maxBindingBytes?: number;
  /** What is planned otherwise than by default, such as what `deno task tune` found for an adapter; see `explain`. */
  readonly plan?: Partial<Choices>;
}
