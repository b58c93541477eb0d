/**
 * The WebGPU devices of this machine, as the suites see them.
 *
 * On llvmpipe compiling kernels is most of what their tests take. Mesa keeps what it has compiled in
 * `~/.cache/mesa_shader_cache`, and a test costs as many kernels as no other test compiles: each once, by webgpu_llvmpipe.ts.
 */

import { demanded } from "./demanded.ts";
import { type DeviceKit, type Kit, register } from "./kit.ts";
import { recordGpu, type RecordingGpu } from "./recording_gpu.ts";
import { isRun, type Tier } from "./tier.ts";
import { endIdle, lend } from "./webgpu_pool.ts";
import { createDevice } from "../kernels/webgpu/device.ts";
import type { OnBlock } from "../kernels/webgpu/memory.ts";
import type { WebGpuArray, WebGpuDevice, WebGpuOptions } from "../kernels/webgpu_device.ts";

/** Whether this runtime's own WebGPU is to be tested: where there is an adapter, or the run promises one. */
export async function testsWebgpu(): Promise<boolean> {
  const adapter = await globalThis.navigator?.gpu?.requestAdapter();
  return Boolean(adapter) || demanded("webgpu");
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

/** An open handle. */
export interface Opened {
  readonly device: WebGpuDevice;
  /** Its GPUDevice, which counts. */
  readonly recording: RecordingGpu;
  /** Opens another handle of the same kind, on another GPUDevice. */
  readonly again: () => Promise<Opened>;
  /** Waits for everything that is under way. */
  readonly settled: () => Promise<void>;
  /** Ends the handle, and leaves its GPUDevice to the next. */
  readonly close: () => Promise<void>;
}

/** Opens a handle on a GPUDevice that nobody else has meanwhile. */
export async function open(
  gpu: GPU,
  opening: Omit<Opening, "name">,
): Promise<Opened> {
  const { everything, options = {}, onBlock } = opening;
  const lent = await lend(gpu, everything);
  const recording = recordGpu(lent.gpuDevice);
  const { gpuDevice } = recording;
  const { device, settled } = createDevice(gpuDevice, options, {
    ...(onBlock && { onBlock: onBlock(gpuDevice) }),
  });
  const close = async () => {
    device[Symbol.dispose]();
    await settled();
    lent.giveBack();
  };
  return { device, recording, again: () => open(gpu, opening), close, settled };
}

/** What a kit of WebGPU says beside how its handle is opened. */
export type KitOpening =
  & Opening
  & Pick<DeviceKit<WebGpuArray>, "tier" | "giants" | "cases" | "ways">;

/**
 * A kit of one handle for all tests, since what takes the time is to open a GPUDevice and to compile kernels. The last
 * test must be that of `closing`, which ends the handle.
 */
export async function sharedKit(gpu: GPU, opening: KitOpening): Promise<{
  readonly kit: DeviceKit<WebGpuArray>;
  readonly closing: () => Promise<void>;
}> {
  const { name, tier, giants, cases = 60, ways = 4 } = opening;
  // Nothing is opened for tests that are only counted.
  const opened = isRun(tier) ? await open(gpu, opening) : null;
  const kit: DeviceKit<WebGpuArray> = {
    ...{ name, cases, ways, ...(tier && { tier }), ...(giants && { giants }) },
    open: () => {
      const { device, settled } = opened!;
      // With `gpu`: Dawn's objects crash once the instance that they came from is forgotten.
      return Promise.resolve({ device, close: settled, gpu });
    },
    ulps: ULPS,
    nonFinite: false,
    subnormals: false,
    arithmetic: "float32",
  };
  return { kit, closing: async () => await opened?.close() };
}

/** How the tests of this folder's WebGPU part get at a device. */
export interface Opener {
  readonly gpu: GPU;
  /** "full" where the run and the adapter have time for large tensors, long loops and every kernel. */
  readonly tier: Tier;
  /** Registers a test with a handle of its own, which ends with it. */
  readonly test: (
    name: string,
    opening: Omit<Opening, "name">,
    body: (opened: Opened) => Promise<void> | void,
  ) => void;
  /** Registers the last test, which ends the GPUDevices that the others had. */
  readonly ending: () => void;
}

/** Makes an opener; its tests have the kit's name before their own. */
export function opener(gpu: GPU, kit: Kit): Opener {
  const test: Opener["test"] = (what, opening, body) =>
    register(kit, what, async () => {
      const opened = await open(gpu, opening);
      try {
        await body(opened);
      } finally {
        await opened.close();
      }
    });
  const ending = () => register(kit, "the GPUDevices of all tests end", () => endIdle(gpu));
  return { gpu, tier: kit.tier ?? "quick", test, ending };
}

/** Fills every block that is handed out or given back with NaN, so that whoever reads what nobody wrote shows it. */
export function poison(gpuDevice: GPUDevice): OnBlock {
  return ({ buffer, bytes, purpose }) => {
    if (purpose !== "storage") return;
    gpuDevice.queue.writeBuffer(buffer, 0, new Uint8Array(bytes - bytes % 4).fill(0xff));
  };
}
