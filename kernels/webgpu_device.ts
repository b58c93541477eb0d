/**
 * syncbn on WebGPU: a device over any `GPUDevice`, the runtime's own, Dawn's or a browser's, and the way between its
 * tensors and buffers of your own.
 *
 * @example Where there is an adapter
 * ```ts
 * import { batchNormForward, initBatchNorm, tensor, toArray } from "@syncbn/syncbn";
 * import { requestWebGpuDevice } from "@syncbn/syncbn/webgpu";
 *
 * if (await navigator.gpu?.requestAdapter()) {
 *   await using device = await requestWebGpuDevice();
 *   const state = initBatchNorm(device, 1, { eps: 0 });
 *   const { output } = batchNormForward(state, tensor(device, [1, 3], [2, 1]), { device });
 *   const [low, high] = await toArray(device, output);
 *   console.assert(low === -1 && high === 1);
 * }
 * ```
 *
 * @module
 */

import type { Device } from "../lib/device.ts";
import { DeviceError } from "../lib/errors.ts";
import { adoptTensor, type Tensor, type TensorOptions } from "../lib/tensor.ts";
import type { GpuBinding, WebGpuArray } from "./webgpu/arrays.ts";
import { checkWebGpuOptions, createDevice } from "./webgpu/device.ts";
import type { WebGpuDevice, WebGpuInfo, WebGpuOptions } from "./webgpu/device.ts";
import type { ExplainOptions, KernelPlan, Plan } from "./webgpu/explain.ts";
import type { Pack } from "./wgsl/tiles.ts";

export type { GpuBinding, WebGpuArray, WebGpuDevice, WebGpuInfo, WebGpuOptions };
export type { ExplainOptions, KernelPlan, Pack, Plan };

/** A device that owns its `GPUDevice`, which ends with it; `await using` waits until everything has. */
export interface OwnedWebGpuDevice extends WebGpuDevice, AsyncDisposable {
  /** The implementation that it came from. It stands here because Dawn's objects do not keep theirs alive. */
  readonly gpu: GPU;
}

/** Options of {@linkcode requestWebGpuDevice}. */
export interface RequestWebGpuOptions extends WebGpuOptions {
  /** Another implementation of WebGPU, such as Dawn's `create([])` from `npm:webgpu`; `navigator.gpu` by default. */
  readonly gpu?: GPU;
  /** Which adapter to prefer; `"high-performance"` by default. */
  readonly powerPreference?: GPUPowerPreference;
  /** Features that kernels of your own need; requesting rejects where the adapter has them not. */
  readonly requiredFeatures?: readonly GPUFeatureName[];
}

const REQUEST_OPTIONS = ["gpu", "powerPreference", "requiredFeatures"];
const FLOAT16 = "shader-f16";
/** Limits that are raised to the adapter's: how large, how many, how wide. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupsPerDimension",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupStorageSize",
] as const;

/**
 * Makes a device on a `GPUDevice` of yours, which is borrowed: any implementation, with the features and limits that it
 * has.
 *
 * float16 tensors need the feature `shader-f16` and a runtime with `Float16Array`. What the GPU reports late, such as
 * its loss, rejects the next awaited call, and every later one, with a DeviceError.
 *
 * @param gpuDevice the GPUDevice; it must outlive the handle. One of Dawn's ends when what `create([])` returned is
 * collected: keep that too
 * @param options the size of bindings
 * @returns a frozen device; pipelines and idle buffers are kept until it is disposed
 * @throws TypeError where there is no GPUDevice or an unknown option, RangeError for an impossible size of bindings
 *
 * @example On a GPUDevice that other kernels use too
 * ```ts
 * import { tensor } from "@syncbn/syncbn";
 * import { webgpuDevice } from "@syncbn/syncbn/webgpu";
 *
 * const adapter = await navigator.gpu?.requestAdapter();
 * if (adapter) {
 *   const gpuDevice = await adapter.requestDevice();
 *   {
 *     using device = webgpuDevice(gpuDevice);
 *     const x = tensor(device, [1, 2], [2, 1]);
 *     console.assert(device.owns(x.data));
 *   }
 *   gpuDevice.destroy();
 * }
 * ```
 */
export function webgpuDevice(gpuDevice: GPUDevice, options: WebGpuOptions = {}): WebGpuDevice {
  checkGpuDevice(gpuDevice);
  checkWebGpuOptions(options);
  return createDevice(gpuDevice, options).device;
}

/**
 * Requests an adapter and a `GPUDevice` with its limits, and shader-f16 if it has that, and makes a device on it.
 *
 * @param options another implementation of WebGPU, preferences, features for kernels of your own
 * @returns the device; to dispose it (`await using`) destroys the GPUDevice too
 * @throws (rejects with) DeviceError "unsupported" where the runtime has no WebGPU or no adapter
 *
 * @example
 * ```ts
 * import { DeviceError } from "@syncbn/syncbn";
 * import { requestWebGpuDevice } from "@syncbn/syncbn/webgpu";
 *
 * try {
 *   await using device = await requestWebGpuDevice();
 *   console.log(device.info.name, device.info.isFallbackAdapter);
 * } catch (error) {
 *   if (!(error instanceof DeviceError && error.code === "unsupported")) throw error;
 * }
 * ```
 */
export async function requestWebGpuDevice(
  options: RequestWebGpuOptions = {},
): Promise<OwnedWebGpuDevice> {
  checkWebGpuOptions(options, REQUEST_OPTIONS);
  const { gpu = globalThis.navigator?.gpu, powerPreference = "high-performance" } = options;
  if (typeof gpu?.requestAdapter !== "function") {
    throw new DeviceError(
      "Cannot request a GPU as this runtime has no WebGPU: pass another implementation as gpu, " +
        "such as create([]) of npm:webgpu",
      "unsupported",
    );
  }
  const adapter = await gpu.requestAdapter({ powerPreference });
  if (!adapter) {
    throw new DeviceError(
      "Cannot request a GPU as there is no adapter: install the GPU's Vulkan, Metal or D3D12 driver, " +
        "or Mesa's software one (Debian: mesa-vulkan-drivers)",
      "unsupported",
    );
  }
  const { requiredFeatures = [] } = options;
  const missing = requiredFeatures.filter((feature) => !adapter.features.has(feature));
  if (missing.length > 0) {
    throw new DeviceError(
      `Cannot request a GPU as the adapter must have the features ${missing.join(", ")}: ` +
        `current ones are ${[...adapter.features].join(", ")}`,
      "unsupported",
    );
  }
  const gpuDevice = await adapter.requestDevice({
    requiredFeatures: [
      ...requiredFeatures.filter((feature) => feature !== FLOAT16),
      ...(adapter.features.has(FLOAT16) ? [FLOAT16] as const : []),
    ],
    requiredLimits: Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]])),
  });
  const { device, settled } = createDevice(gpuDevice, options, { adapterInfo: adapter.info });
  const dispose = (): void => {
    device[Symbol.dispose]();
    gpuDevice.destroy();
  };
  return Object.freeze({
    ...device,
    gpu,
    [Symbol.dispose]: dispose,
    [Symbol.asyncDispose]: async () => {
      dispose();
      await settled();
    },
  });
}

/**
 * Tells how a device would work on tensors of a shape: what each kernel takes at a time, how workgroups share it out, how
 * often memory is read. Nothing is launched; print it with `console.log`.
 *
 * @param device a WebGPU device's handle
 * @param shape logical shape (N, C, ...spatial)
 * @param options storage, memory order, activation
 * @returns the plan, frozen
 * @throws TypeError or RangeError for what can be no tensor's, RangeError for an empty one
 *
 * @example
 * ```ts
 * import { explain, requestWebGpuDevice } from "@syncbn/syncbn/webgpu";
 *
 * if (await navigator.gpu?.requestAdapter()) {
 *   await using device = await requestWebGpuDevice();
 *   console.log(explain(device, [32, 64, 56, 56], { activation: true }));
 * }
 * ```
 */
export function explain(
  device: Pick<WebGpuDevice, "explain">,
  shape: readonly number[],
  options: ExplainOptions = {},
): Plan {
  return device.explain(shape, options);
}

/**
 * Makes a tensor of a part of a buffer of yours, without a copy.
 *
 * The buffer is borrowed: the library reads it, never writes or destroys it. What your kernels have written there counts
 * from their submit on. Free the tensor when the buffer's contents change their meaning; a vector of C elements is
 * `wrap(device, binding, [1, C]).data`.
 *
 * @param device a WebGPU device on the buffer's GPUDevice, or a region's or batch's handle on one
 * @param binding the buffer, with usage STORAGE (and COPY_SRC for reading back); the first byte, 0 by default; the number
 * of bytes, the rest of the buffer by default
 * @param shape the logical shape `(N, C, ...spatial)`
 * @param options storage and memory order of the elements
 * @returns a frozen tensor
 * @throws TypeError for a device that is not on WebGPU or a buffer without usage STORAGE, RangeError where the elements do
 * not fit the part, DeviceError for float16 without shader-f16
 *
 * @example The output of a kernel of yours is normalized where it lies
 * ```ts
 * import { batchNormForward, initBatchNorm } from "@syncbn/syncbn";
 * import { unwrap, webgpuDevice, wrap } from "@syncbn/syncbn/webgpu";
 *
 * const adapter = await navigator.gpu?.requestAdapter();
 * if (adapter) {
 *   const gpuDevice = await adapter.requestDevice();
 *   using device = webgpuDevice(gpuDevice);
 *   const buffer = gpuDevice.createBuffer({ size: 64, usage: GPUBufferUsage.STORAGE });
 *   // ... your kernel writes 16 float32 to it ...
 *   const input = wrap(device, { buffer }, [4, 2, 2]);
 *   const { output } = batchNormForward(initBatchNorm(device, 2), input, { device });
 *   const binding = unwrap(output); // the resource of a bind group of yours
 *   console.assert(binding.size === 64);
 *   gpuDevice.destroy();
 * }
 * ```
 */
export function wrap(
  device: Pick<Device<WebGpuArray>, "adopt">,
  binding: Pick<GpuBinding, "buffer"> & Partial<GpuBinding>,
  shape: readonly number[],
  options: TensorOptions = {},
): Tensor<WebGpuArray> {
  return adoptTensor(device, binding, shape, options);
}

/**
 * Tells where a tensor or a vector lies, for a bind group of yours.
 *
 * Bind it for reading: tensors and states are immutable. What the library has launched comes before whatever you submit
 * afterwards. Free the array after your submit, not before, and do not wrap what this returns: the array exists already.
 *
 * @param of a tensor, or an array such as a state's weight or a gradient
 * @returns buffer, first byte (a multiple of the GPUDevice's minStorageBufferOffsetAlignment unless it was wrapped
 * elsewhere) and number of bytes
 * @throws TypeError where it is not an array of a WebGPU device, was freed, or belongs to a batch that has not been
 * launched yet
 *
 * @example
 * ```ts
 * import { tensor } from "@syncbn/syncbn";
 * import { unwrap, webgpuDevice } from "@syncbn/syncbn/webgpu";
 *
 * const adapter = await navigator.gpu?.requestAdapter();
 * if (adapter) {
 *   const gpuDevice = await adapter.requestDevice();
 *   using device = webgpuDevice(gpuDevice);
 *   const { size } = unwrap(tensor(device, [1, 2, 3, 4], [2, 2]));
 *   console.assert(size === 16);
 *   gpuDevice.destroy();
 * }
 * ```
 */
export function unwrap(of: Tensor<WebGpuArray> | WebGpuArray): GpuBinding {
  const array = of && "data" in of ? of.data : of;
  if (array?.device !== "webgpu") {
    throw new TypeError(
      `Cannot unwrap the tensor as it must be one of a WebGPU device: current value is ${array}`,
    );
  }
  return array.binding();
}

function checkGpuDevice(gpuDevice: GPUDevice): void {
  if (typeof gpuDevice?.createComputePipeline === "function") return;
  throw new TypeError(
    `Cannot make the device as gpuDevice must be a GPUDevice: current value is ${gpuDevice}`,
  );
}
