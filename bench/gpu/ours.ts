/**
 * Ours on a GPU, and plain copies by the same GPU: checked, then timed by the wall and, where it is granted, by the GPU's own
 * clock.
 *
 * @module
 */

import {
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  type ForwardOptions,
  region,
  release,
  stateFromHost,
  tensor,
  toArray,
} from "../../mod.ts";
import type { WebGpuArray, WebGpuDevice } from "../../kernels/webgpu_device.ts";
import { normalArray } from "../../tests/random.ts";
import { elementsOf } from "../batches.ts";
import { type Timed, workTimes } from "../measure.ts";
import { bytesOf, type Case, type Work, WORKS } from "./cases.ts";
import { type Errors, errorsOf, type Numbers, WRONG } from "./check.ts";
import { gpuMilliseconds } from "./timestamps.ts";

/** eps of everything that is measured. */
export const EPS = 1e-5;
/** Mean of x: sums of squares in float32 have no digit left there; float16 has few digits of its own. */
const MEAN = { float32: 1e3, float16: 1 } as const;
/** How many numbers are drawn; a prime, so that channels of larger batches repeat each other at other places. */
const DRAWN = 1_048_573;

/** What one case took, in ms per call. */
export interface CaseTimes {
  readonly case: Case;
  readonly errors: Errors;
  /** By the wall clock: so many calls and one wait, less an empty wait. */
  readonly wall: Readonly<Record<Work | Copy, number>>;
  /** Between two timestamps of the GPU; null where it has none. */
  readonly gpu: Readonly<Record<Work | Copy, number>> | null;
}

/** A copy of a tensor, the limit: by the queue, and by a kernel. */
export type Copy = "copy" | "copy kernel";

/** Both. */
export const COPIES: readonly Copy[] = ["copy", "copy kernel"];

/**
 * Checks and times a case.
 *
 * @param device the device
 * @param one the case
 * @param rounds how many turns everything takes
 * @returns errors and times
 * @throws RangeError where a result is wrong: it is not timed then
 */
export async function measureOurs(
  device: WebGpuDevice,
  one: Case,
  rounds: number,
): Promise<CaseTimes> {
  const { batch: { shape, format }, dtype, fused } = one;
  const [length, channels] = [elementsOf(one.batch), shape[1]];
  const numbers = numbersOf(one);
  const [x, dy, residual] = [numbers.x, numbers.dy, numbers.residual].map((values) =>
    tensor(device, values, shape, { format, dtype })
  );
  const state = stateFromHost(device, {
    ...{ numFeatures: channels, eps: EPS, momentum: 0.1, numBatchesTracked: 0 },
    ...{ weight: numbers.weight, bias: numbers.bias },
    runningMean: new Float32Array(channels).fill(MEAN[dtype]),
    runningVar: new Float32Array(channels).fill(1),
  });
  const options: ForwardOptions<WebGpuArray> = fused ? { activation: "relu", residual } : {};
  const forward = batchNormForward(state, x, { device }, options);
  const back = batchNormBackward(forward.saved, dy, { device });
  const errors = errorsOf(one, numbers, {
    y: await toArray(device, forward.output),
    dx: await toArray(device, back.gradInput),
  }, EPS);
  if (!(Math.max(errors.y, errors.dx) <= WRONG[dtype])) {
    throw new RangeError(`wrong: y is off by ${errors.y}, dx by ${errors.dx}`);
  }
  const discard = (body: (scope: typeof device) => unknown) => () =>
    region(device, (scope) => {
      body(scope as typeof device);
    });
  const copies = copiesOf(device.gpuDevice, Math.ceil(length * (bytesOf(one) / length) / 16) * 16);
  const runs: Record<Work | Copy, () => void> = {
    ...copies.runs,
    inference: discard((scope) => batchNormInfer(state, x, { device: scope }, options)),
    forward: discard((scope) => batchNormForward(state, x, { device: scope }, options)),
    backward: discard((scope) => batchNormBackward(forward.saved, dy, { device: scope })),
  };
  const settle = () => device.gpuDevice.queue.onSubmittedWorkDone();
  const names = [...COPIES, ...WORKS];
  const rows = names.map((name): Timed => ({ run: runs[name], settle }));
  const wall = await workTimes(rows, rounds);
  const gpu: number[] = [];
  if (device.gpuDevice.features.has("timestamp-query")) {
    for (const [i, name] of names.entries()) {
      const calls = Math.max(1, Math.ceil(20 / wall[i]));
      gpu.push(await gpuMilliseconds(device.gpuDevice, runs[name], calls, rounds));
    }
  }
  release(device, [x, dy, residual, state, forward, back]);
  copies.destroy();
  const named = (times: readonly number[]) =>
    Object.fromEntries(names.map((name, i) => [name, times[i]])) as Record<Work | Copy, number>;
  return { case: one, errors, wall: named(wall), gpu: gpu.length > 0 ? named(gpu) : null };
}

/** The numbers of a case, rounded to its storage. */
export function numbersOf({ batch, dtype }: Case): Numbers {
  const [length, channels] = [elementsOf(batch), batch.shape[1]];
  const drawn = (seed: number, mean: number) => {
    const few = normalArray(Math.min(DRAWN, length), seed);
    const all = Float32Array.from({ length }, (_, i) => mean + few[i % few.length]);
    return dtype === "float16" ? Float32Array.from(Float16Array.from(all)) : all;
  };
  return {
    ...{ x: drawn(1, MEAN[dtype]), dy: drawn(2, 0), residual: drawn(3, 0) },
    ...{ weight: normalArray(channels, 4, 1, 0.1), bias: normalArray(channels, 5, 0, 0.1) },
  };
}

/** Copies of so many bytes: four independent loads of 16 bytes in flight, as in our kernels. */
function copiesOf(gpuDevice: GPUDevice, bytes: number) {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const [source, target] = [0, 1].map(() => gpuDevice.createBuffer({ size: bytes, usage }));
  const module = gpuDevice.createShaderModule({
    code: `
@group(0) @binding(0) var<storage, read> source: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> copied: array<vec4f>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.x + id.y * grid.x * 256u;
  let quarter = (arrayLength(&source) + 3u) / 4u;
  if (i >= quarter) { return; }
  let a = source[i];
  let b = source[min(i + quarter, arrayLength(&source) - 1u)];
  let c = source[min(i + 2u * quarter, arrayLength(&source) - 1u)];
  let d = source[min(i + 3u * quarter, arrayLength(&source) - 1u)];
  copied[i] = a;
  if (i + quarter < arrayLength(&source)) { copied[i + quarter] = b; }
  if (i + 2u * quarter < arrayLength(&source)) { copied[i + 2u * quarter] = c; }
  if (i + 3u * quarter < arrayLength(&source)) { copied[i + 3u * quarter] = d; }
}`,
  });
  const pipeline = gpuDevice.createComputePipeline({
    layout: "auto",
    compute: { module, entryPoint: "main" },
  });
  // A binding is smaller than a buffer may be: what does not fit is copied by the queue alone.
  const bound = Math.min(
    bytes,
    Math.floor(gpuDevice.limits.maxStorageBufferBindingSize / 16) * 16,
  );
  const groups = Array.from({ length: Math.ceil(bytes / bound) }, (_, i) => {
    const offset = Math.floor(i * bound / 256) * 256;
    const size = Math.min(bound, bytes - offset);
    const entries = [source, target].map((buffer, binding) => ({
      binding,
      resource: { buffer, offset, size },
    }));
    const layout = pipeline.getBindGroupLayout(0);
    return { size, group: gpuDevice.createBindGroup({ layout, entries }) };
  });
  const submit = (encode: (encoder: GPUCommandEncoder) => void) => () => {
    const encoder = gpuDevice.createCommandEncoder();
    encode(encoder);
    gpuDevice.queue.submit([encoder.finish()]);
  };
  return {
    runs: {
      copy: submit((encoder) => encoder.copyBufferToBuffer(source, 0, target, 0, bytes)),
      "copy kernel": submit((encoder) => {
        const pass = encoder.beginComputePass();
        pass.setPipeline(pipeline);
        for (const { size, group } of groups) {
          pass.setBindGroup(0, group);
          const workgroups = Math.ceil(size / 64 / 256);
          const wide = Math.min(workgroups, 65_535);
          pass.dispatchWorkgroups(wide, Math.ceil(workgroups / wide));
        }
        pass.end();
      }),
    } satisfies Record<Copy, () => void>,
    destroy: () => {
      source.destroy();
      target.destroy();
    },
  };
}
