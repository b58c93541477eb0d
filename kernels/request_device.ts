/**
 * syncbn on what the machine has: a hardware GPU, or else the CPU by Wasm SIMD.
 *
 * @example The same program on either
 * ```ts
 * import { batchNormForward, initBatchNorm, tensor, toArray } from "@syncbn/syncbn";
 * import { requestDevice } from "@syncbn/syncbn/device";
 *
 * await using device = await requestDevice();
 * console.log(`${device.info.name}, as ${device.reason}`);
 * const state = initBatchNorm(device, 1, { eps: 0 });
 * const { output } = batchNormForward(state, tensor(device, [1, 3], [2, 1]), { device });
 * const [low, high] = await toArray(device, output);
 * console.assert(low === -1 && high === 1);
 * ```
 *
 * @module
 */

// One type for both devices, since a union of `Device<A>` fits no generic function; that the arrays are of one kind is
// known at run time, where a foreign one is refused. The adapter is looked at before anything is opened, and nothing
// falls back in silence: hence `reason`.

import type { Device } from "../lib/device.ts";
import { checkOptions } from "../lib/check_effects.ts";
import { DeviceError } from "../lib/errors.ts";
import { shown } from "../lib/words.ts";
import { type WasmArray, type WasmDevice, wasmDevice, type WasmOptions } from "./wasm_device.ts";
import { type OwnedWebGpuDevice, requestWebGpuDevice, type WebGpuArray } from "./webgpu_device.ts";

/**
 * An array of a requested device. Only one kind occurs in a program, and an array of another device is a TypeError when it
 * is used.
 */
export type DeviceArray = WebGpuArray | WasmArray;

/** A device of either kind under one type. To dispose it ends all that was opened for it. */
export interface RequestedHandle<
  Kind extends "webgpu" | "wasm",
  Handle extends OwnedWebGpuDevice | WasmDevice,
> extends Device<DeviceArray>, Disposable, AsyncDisposable {
  /** What was chosen. */
  readonly kind: Kind;
  /** Why it was chosen, as a clause: `"there is no adapter"`. */
  readonly reason: string;
  /** What the device says of itself. */
  readonly info: Handle["info"];
  /**
   * The same device under its own type, for what that alone can do: buffers of your own, views. Arrays of one are arrays of
   * the other, and they are disposed together.
   */
  readonly handle: Handle;
}

/** What {@linkcode requestDevice} chose; `kind` tells which `handle` it has. */
export type RequestedDevice =
  | RequestedHandle<"webgpu", OwnedWebGpuDevice>
  | RequestedHandle<"wasm", WasmDevice>;

/** Options of {@linkcode requestDevice}. */
export interface RequestDeviceOptions {
  /** Another implementation of WebGPU, such as Dawn's `create([])` from `npm:webgpu`; `navigator.gpu` by default. */
  readonly gpu?: GPU;
  /** Which adapter to prefer; `"high-performance"` by default. */
  readonly powerPreference?: GPUPowerPreference;
  /**
   * Options of the Wasm device, looked at only where it is chosen. As there it has one thread by default: how many threads
   * a replica may take depends on how many replicas share the machine, which only the caller knows.
   */
  readonly wasm?: WasmOptions;
}

const OPTIONS = ["gpu", "powerPreference", "wasm"];
const POWER_PREFERENCES: readonly unknown[] = ["high-performance", "low-power"];
/** Rasterizers on the CPU: of Mesa, Chromium and Windows. Not every browser has isFallbackAdapter among the infos yet. */
const SOFTWARE = /llvmpipe|lavapipe|softpipe|swiftshader|basic render/i;

/**
 * Opens a hardware GPU, or else a Wasm device.
 *
 * A software adapter computes on the CPU too, and is not taken: `requestWebGpuDevice` takes it. Nor is a GPU that is there
 * but cannot be opened. `reason` says which it was.
 *
 * @param options another implementation of WebGPU, preferences, options of the Wasm device
 * @returns a frozen device; to dispose it (`await using`) ends the GPUDevice or the threads that were made for it
 * @throws (rejects with) TypeError for impossible options; DeviceError "unsupported" where there is neither a hardware GPU
 * nor Wasm SIMD; what `wasmDevice` rejects with where it comes to that
 *
 * @example What only one kind can do
 * ```ts
 * import { tensor } from "@syncbn/syncbn";
 * import { requestDevice } from "@syncbn/syncbn/device";
 * import { view } from "@syncbn/syncbn/wasm";
 * import { unwrap } from "@syncbn/syncbn/webgpu";
 *
 * await using device = await requestDevice({ wasm: { threads: 2 } });
 * const { data } = tensor(device, [1, 2, 3, 4], [2, 2]);
 * if (data.device === "wasm") console.assert(view(data)[3] === 4);
 * else console.assert(unwrap(data).size === 16);
 * ```
 */
export async function requestDevice(options: RequestDeviceOptions = {}): Promise<RequestedDevice> {
  checkRequest(options);
  const gpu = await openGpu(options);
  if (typeof gpu !== "string") return requested("webgpu", gpu, "there is a hardware GPU");
  return requested("wasm", await openWasm(options.wasm, gpu), gpu);
}

function requested<
  Kind extends "webgpu" | "wasm",
  Handle extends OwnedWebGpuDevice | WasmDevice,
>(
  kind: Kind,
  handle: Handle,
  reason: string,
): RequestedHandle<Kind, Handle> {
  // Sound as long as programs check types: the arrays that the device makes are its own, and it refuses all others.
  const device = handle as unknown as Device<DeviceArray> & Disposable & AsyncDisposable;
  return Object.freeze({ ...device, info: handle.info, kind, reason, handle });
}

/** Opens a hardware GPU, or says why there is none. */
async function openGpu(
  { gpu = globalThis.navigator?.gpu, powerPreference = "high-performance" }: RequestDeviceOptions,
): Promise<OwnedWebGpuDevice | string> {
  if (!gpu) return "this runtime has no WebGPU";
  try {
    // Looked at before anything is made on it: a device of a software adapter starts threads of its own.
    const adapter = await gpu.requestAdapter({ powerPreference });
    if (!adapter) return "there is no adapter";
    const software = softwareName(adapter.info);
    if (software !== null) return `the adapter is software (${software})`;
    const device = await requestWebGpuDevice({ gpu, powerPreference });
    // An adapter that has gone meanwhile gives a GPUDevice all the same, which is lost from its beginning.
    const lost = await Promise.race([device.gpuDevice.lost, null]);
    if (lost === null) return device;
    await device[Symbol.asyncDispose]();
    return cannotOpen(lost.message || "it is lost");
  } catch (error) {
    // Of whatever class: implementations reject with their own.
    return cannotOpen(error instanceof Error ? error.message : String(error));
  }
}

function cannotOpen(message: string): string {
  return `the GPU cannot be opened (${message})`;
}

/** What software an adapter is, or null for hardware. */
function softwareName(
  { vendor, architecture, device, description, isFallbackAdapter }: GPUAdapterInfo,
): string | null {
  const names = [description, vendor, architecture, device].filter(Boolean);
  const found = names.find((name) => SOFTWARE.test(name));
  if (found === undefined && !isFallbackAdapter) return null;
  return found ?? names[0] ?? "unnamed";
}

async function openWasm(options: WasmOptions | undefined, reason: string): Promise<WasmDevice> {
  try {
    return await wasmDevice(options);
  } catch (cause) {
    if (!(cause instanceof DeviceError) || cause.code !== "unsupported") throw cause;
    throw new DeviceError(
      `Cannot request a device as there must be a hardware GPU or Wasm SIMD: ${reason}, and there ` +
        "is no Wasm SIMD; use a newer runtime, or referenceDevice()",
      "unsupported",
      { cause },
    );
  }
}

function checkRequest(options: RequestDeviceOptions): void {
  const action = "request a device";
  checkOptions(options, OPTIONS, action);
  const { gpu, powerPreference } = options;
  if (gpu !== undefined && typeof gpu?.requestAdapter !== "function") {
    throw new TypeError(
      `Cannot ${action} as gpu must be an implementation of WebGPU, such as navigator.gpu: ` +
        `current value is ${shown(gpu)}`,
    );
  }
  if (powerPreference !== undefined && !POWER_PREFERENCES.includes(powerPreference)) {
    throw new TypeError(
      `Cannot ${action} as powerPreference must be "high-performance" or "low-power": ` +
        `current value is ${shown(powerPreference)}`,
    );
  }
}
