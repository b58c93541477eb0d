/**
 * Where the demo computes.
 *
 * @module
 */

import { requestDevice } from "../kernels/request_device.ts";
import { type WasmDevice, wasmDevice } from "../kernels/wasm_device.ts";
import { type OwnedWebGpuDevice, requestWebGpuDevice } from "../kernels/webgpu_device.ts";
import { DeviceError, isCollectiveError, referenceDevice } from "../mod.ts";
import type { ChosenDevice, DeviceName } from "./flags.ts";
import { hostLayers } from "./host_layers.ts";
import type { Layers } from "./layers.ts";
import { startError } from "./start_error.ts";
import { webgpuLayers } from "./webgpu_layers.ts";

/** A device that was opened, and the layers beside it. To dispose it ends the device. */
export interface Place extends AsyncDisposable {
  /** Which device it is. */
  readonly device: ChosenDevice;
  /** What computes, for people; and why, where the demo chose. */
  readonly title: string;
  /** Makes the layers for as long as a body takes, and returns what the body returns. */
  readonly onLayers: <R>(body: <V, A>(layers: Layers<V, A>) => Promise<R>) => Promise<R>;
}

/** How much later than its consequences the loss of a GPU may be told, in ms: by a software GPU that is busy. */
const LOSS_MS = 3000;

/**
 * Opens a device.
 *
 * @param name which one; with `"auto"` a hardware GPU, or else Wasm
 * @param exact whether it must be exact, as no GPU is
 * @returns where to compute, for the caller to dispose, or null where `"webgpu"` finds no adapter
 */
export async function openPlace(name: DeviceName, exact = false): Promise<Place | null> {
  if (exact && name !== "reference") return onWasm(await wasmDevice({ exact }));
  switch (name) {
    case "reference":
      return onReference(exact);
    case "wasm":
      return onWasm(await wasmDevice());
    case "webgpu": {
      const gpu = await openAdapter();
      return gpu && onGpu(gpu);
    }
    case "auto": {
      const { kind, handle, reason } = await requestDevice();
      return kind === "webgpu" ? onGpu(handle, reason) : onWasm(handle, reason);
    }
  }
}

/**
 * Opens Wasm where the demo chose it although this process has a GPU.
 *
 * @param reason why, as a clause
 * @returns where to compute, for the caller to dispose
 */
export async function openWasm(reason: string): Promise<Place> {
  return onWasm(await wasmDevice(), reason);
}

/** Any adapter, a software one too. */
async function openAdapter(): Promise<OwnedWebGpuDevice | null> {
  try {
    return await requestWebGpuDevice();
  } catch (error) {
    if (error instanceof DeviceError && error.code === "unsupported") return null;
    throw error;
  }
}

function onReference(exact: boolean): Place {
  const device = referenceDevice({ exact });
  return Object.freeze<Place>({
    device: "reference",
    title: device.info.name,
    onLayers: (body) => body(hostLayers(device)),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
}

function onWasm(device: WasmDevice, reason?: string): Place {
  return Object.freeze<Place>({
    device: "wasm",
    title: titleOf(device.info.name, reason),
    onLayers: (body) => body(hostLayers(device)),
    [Symbol.asyncDispose]: device[Symbol.asyncDispose],
  });
}

function onGpu(device: OwnedWebGpuDevice, reason?: string): Place {
  return Object.freeze<Place>({
    device: "webgpu",
    title: titleOf(device.info.name, reason),
    onLayers: async (body) => {
      const layers = webgpuLayers(device);
      try {
        return await body(layers);
      } catch (error) {
        throw await lossOf(device.gpuDevice, error);
      } finally {
        layers[Symbol.dispose](); // Not by `using`, which not every browser reads.
      }
    },
    [Symbol.asyncDispose]: device[Symbol.asyncDispose],
  });
}

/** The loss of a GPU where that is what a body failed of, whatever it says itself; it is told a moment later. */
async function lossOf({ lost }: GPUDevice, error: unknown): Promise<unknown> {
  if (isCollectiveError(error)) return error; // Of another replica.
  const later = new Promise<null>((resolve) => setTimeout(resolve, LOSS_MS, null));
  const loss = await Promise.race([lost, later]);
  return loss ? new Error(`The GPU was lost (${loss.message})`, { cause: error }) : error;
}

function titleOf(name: string, reason?: string): string {
  return reason === undefined ? name : `${name}, as ${reason}`;
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
