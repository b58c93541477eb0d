/** The composition root: memory, failures, launches and arrays of one handle, given to each other. */

import { checkOptions } from "../../lib/check_effects.ts";
import { checkOneOf, SWITCH } from "../../lib/check_value.ts";
import type { Device, DeviceInfo } from "../../lib/device.ts";
import { DeviceError } from "../../lib/errors.ts";
import { shown } from "../../lib/words.ts";
import { checkBinding, createArrays, float16Missing, type WebGpuArray } from "./arrays.ts";
import { backwardOperations } from "./backward.ts";
import { type Machine, operateOn } from "./context.ts";
import { type ExplainOptions, explainPlan, type Plan } from "./explain.ts";
import { elementOperations } from "./elements.ts";
import { createFailures } from "./failures.ts";
import { forwardOperations } from "./forward.ts";
import { createLaunches } from "./launches.ts";
import { createMemory, type OnBlock } from "./memory.ts";
import { createBindGroups, createKernels } from "./programs.ts";
import { secondOperations } from "./second.ts";
import { wireOperations } from "./wires.ts";

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
  /**
   * Whether every tensor and vector lies alone in a buffer of exactly its bytes, for owners who take over whole buffers, as
   * TensorFlow.js does; false by default: buffers come in sizes that fit others later, and two vectors may share one.
   */
  readonly exactBuffers?: boolean;
  /**
   * False: no GPUDevice is exact, as `referenceDevice` and `wasmDevice` are. WGSL has no float64 and no 64-bit integers to sum in, and
   * lets a GPU flush subnormal numbers and fuse a product with a sum, so that elements would differ from one GPU to the next.
   */
  readonly exact?: false;
}

/** A binding must hold at least this much: the statistics of one channel, in slices, beside a useful part of a tensor. */
const SMALLEST_BINDING = 65_536;

/** Invocations of a workgroup: as many as WebGPU grants everywhere; software pays for each (111 instead of 294 ms). */
const WORKGROUP = { hardware: 256, software: 64 } as const;

/** What a handle may be told beside the caller's options. */
export interface Circumstances {
  /** The adapter's, for runtimes whose GPUDevice does not know it. */
  readonly adapterInfo?: GPUAdapterInfo;
  /** For tests: called for every block of memory that is handed out or given back. */
  readonly onBlock?: OnBlock;
}

/** Makes a handle on a GPUDevice, which is borrowed, and what waits for everything that the GPU may still report. */
export function createDevice(
  gpuDevice: GPUDevice,
  options: WebGpuOptions,
  { adapterInfo = gpuDevice.adapterInfo, onBlock }: Circumstances = {},
): { readonly device: WebGpuDevice; readonly settled: () => Promise<void> } {
  const { limits: granted, features } = gpuDevice;
  const float16 = features.has("shader-f16") && typeof Float16Array === "function";
  const info = infoOf(adapterInfo, float16);
  const limits = Object.freeze({
    bindingBytes: Math.min(
      options.maxBindingBytes ?? Infinity,
      granted.maxStorageBufferBindingSize,
    ),
    alignment: granted.minStorageBufferOffsetAlignment,
    storageBuffers: granted.maxStorageBuffersPerShaderStage,
    workgroup: WORKGROUP[info.isFallbackAdapter ? "software" : "hardware"],
  });
  const failures = createFailures(gpuDevice);
  const groups = createBindGroups(gpuDevice);
  const memory = createMemory(gpuDevice, failures, groups.forget, {
    exact: options.exactBuffers === true,
    onBlock,
  });
  const launches = createLaunches(gpuDevice, memory, groups, failures);
  const arrays = createArrays(memory);
  const kernels = createKernels();
  const machine = { gpuDevice, memory, arrays, failures, kernels, limits, float16 };
  const adopt: Device<WebGpuArray>["adopt"] = (source, info) => {
    failures.check();
    if (info.dtype === "float16" && !float16) throw float16Missing();
    const { buffer, ...part } = checkBinding(source as Parameters<typeof checkBinding>[0], info);
    const contents = { kind: "elements", ...info } as const;
    return arrays.own({ block: memory.borrow(buffer), ...part }, contents, null);
  };
  const { describe, free, owns } = arrays;
  const launchingBy = (record: Machine["record"]): Omit<Device<WebGpuArray>, "batch"> => {
    const operate = operateOn({ ...machine, record });
    return {
      ...{ info, describe, free, owns, adopt },
      ...elementOperations(operate),
      ...wireOperations(operate),
      ...forwardOperations(operate),
      ...backwardOperations(operate),
      ...secondOperations(operate),
    };
  };

  const batch = <R>(body: (device: Device<WebGpuArray>) => R): R => {
    failures.check();
    return launches.record((recorder) => {
      const record: Machine["record"] = (launch) => {
        failures.check();
        if (recorder.batch.open) return launch(recorder);
        throw new TypeError(
          "Cannot launch in the batch as its body has ended: keep its device within the body",
        );
      };
      const joined: Device<WebGpuArray> = Object.freeze({
        ...launchingBy(record),
        batch: <S>(nested: (device: Device<WebGpuArray>) => S): S => nested(joined),
      });
      return body(joined);
    });
  };
  const record: Machine["record"] = (launch) => {
    failures.check();
    return launches.record(launch);
  };
  const dispose = (): void => {
    failures.fail(
      new DeviceError("Cannot use the device as it was disposed: make a new handle", "lost"),
    );
    memory.close();
  };
  const device: WebGpuDevice = Object.freeze({
    ...launchingBy(record),
    info,
    batch,
    explain: (shape: readonly number[], options?: ExplainOptions) =>
      explainPlan(limits, shape, options),
    gpuDevice,
    [Symbol.dispose]: dispose,
  });
  const settled = async (): Promise<void> => {
    await launches.idle();
    await failures.reported();
  };
  return { device, settled };
}

function infoOf(
  adapterInfo: GPUAdapterInfo | undefined,
  float16: boolean,
): WebGpuInfo {
  const { vendor = "", architecture = "", description = "" } = adapterInfo ?? {};
  const gpu = description || [vendor, architecture].filter(Boolean).join(" ") || "unnamed adapter";
  const isFallbackAdapter = adapterInfo?.isFallbackAdapter === true;
  const kind = isFallbackAdapter ? ", software" : "";
  return Object.freeze<WebGpuInfo>({
    name: `WebGPU (${gpu}${kind})`,
    float16,
    passes: Object.freeze(
      [
        "residual",
        "activation",
        "rectifier",
        "weights",
        "tangents",
        "secondOrder",
        "arrange",
      ] as const,
    ),
    isFallbackAdapter,
  });
}

/** Checks the caller's options: a TypeError for an unknown one, a RangeError for an impossible size of bindings. */
export function checkWebGpuOptions(options: WebGpuOptions, more: readonly string[] = []): void {
  const action = "make the device";
  checkOptions(options, ["maxBindingBytes", "exactBuffers", "exact", ...more], action);
  checkOneOf(options.exact, SWITCH, "exact", action);
  if (options.exact) {
    throw new DeviceError(
      `Cannot ${action} as exact must be false on a GPU: WGSL lets it flush subnormal numbers and fuse products ` +
        "with sums, so that bits differ from one GPU to the next; open wasmDevice({ exact: true })",
      "unsupported",
    );
  }
  const { maxBindingBytes = SMALLEST_BINDING, exactBuffers = false } = options;
  if (typeof exactBuffers !== "boolean") {
    throw new TypeError(
      `Cannot ${action} as exactBuffers must be true, false or left out: ` +
        `current value is ${shown(exactBuffers)}`,
    );
  }
  if (Number.isInteger(maxBindingBytes) && maxBindingBytes >= SMALLEST_BINDING) return;
  throw new RangeError(
    `Cannot ${action} as maxBindingBytes must be an integer of ${SMALLEST_BINDING} or more: ` +
      `current value is ${maxBindingBytes}`,
  );
}
