/** The devices whose throughput is measured, each with its limit: a plain copy by the same machine. */

import { type Device, DeviceError, type ReferenceArray, referenceDevice } from "../mod.ts";
import { type WasmArray, wasmDevice } from "../kernels/wasm_device.ts";
import {
  requestWebGpuDevice,
  type WebGpuArray,
  type WebGpuDevice,
} from "../kernels/webgpu_device.ts";
import { DAWN, loadDawn } from "../tests/load_dawn.ts";
import { type BatchShape, first, last } from "./batches.ts";
import { copiesOf } from "./gpu/copies.ts";

/** A device and what belongs to measuring it. */
export interface Subject<A> {
  readonly name: string;
  readonly device: Device<A>;
  readonly shapes: readonly BatchShape[];
  /** How far from float64 its results may be, for values about 1. */
  readonly most: number;
  /** Makes what copies so many bytes. */
  readonly copy: (bytes: number) => () => unknown;
  /** Waits until everything launched is done; left out where a call has done its work when it returns. */
  readonly settle?: () => Promise<unknown>;
  /** Whether it is a GPU in name only, so that a few iterations must do. */
  readonly software: boolean;
}

export interface GpuSubject extends Subject<WebGpuArray> {
  readonly device: WebGpuDevice;
  readonly settle: () => Promise<unknown>;
}

/** Whether everything is run and checked once, and no figure is meant: `deno task bench -- --quick`. */
export const QUICK = Deno.args.includes("--quick");
/** What `Deno.bench` does then. */
export const ONCE = { n: 1, warmup: 0 } as const;

const SHAPES = [
  first(32, 64, 56, 56),
  first(8, 2048, 7, 7),
  last(32, 256, 14, 14),
  first(256, 128),
];
/** With fewer samples, for a device of plain loops. */
const FEW = [first(2, 64, 56, 56), first(1, 2048, 7, 7), last(2, 256, 14, 14), first(256, 128)];
/** Enough to run every row where a GPU is software, whose speed says nothing. */
const TINY = [first(64, 16), last(4, 4, 2, 2)];

const copyHere = (bytes: number) => {
  const [source, target] = [new Uint8Array(bytes), new Uint8Array(bytes)];
  return () => target.set(source);
};

export function reference(): Subject<ReferenceArray> {
  const [device, name] = [referenceDevice(), "reference"];
  return { name, device, shapes: FEW, most: 2e-5, copy: copyHere, software: false };
}

export async function wasm(threads: number): Promise<Subject<WasmArray>> {
  const device = await wasmDevice({ threads });
  const name = `Wasm, ${threads} ${threads === 1 ? "thread" : "threads"}`;
  const shapes = QUICK ? FEW : SHAPES;
  return { name, device, shapes, most: 2e-5, copy: copyHere, software: false };
}

/** WebGPU by every implementation that is at hand and has an adapter: the runtime's own, and Dawn by `bench:dawn`. */
export async function gpus(): Promise<readonly GpuSubject[]> {
  const native = await Deno.permissions.query({ name: "ffi" });
  const found = [await gpu(`Deno ${Deno.version.deno}`, navigator.gpu)];
  if (native.state === "granted") found.push(await gpu(DAWN, await loadDawn()));
  return found.filter((subject) => subject !== null);
}

async function gpu(implementation: string, gpu: GPU): Promise<GpuSubject | null> {
  try {
    const device = await requestWebGpuDevice({ gpu });
    const { gpuDevice, info: { isFallbackAdapter: software } } = device;
    const copy = (bytes: number) => copiesOf(gpuDevice, Math.ceil(bytes / 16) * 16).runs.copy;
    return {
      ...{ name: `${device.info.name}, ${implementation}`, device, copy, software },
      ...{ shapes: software || QUICK ? TINY : SHAPES, most: 5e-5 },
      // The implementation must outlive its device: Dawn's ends when it is collected.
      settle: () => (void gpu, gpuDevice.queue.onSubmittedWorkDone()),
    };
  } catch (error) {
    if (!(error instanceof DeviceError && error.code === "unsupported")) throw error;
    return null;
  }
}
