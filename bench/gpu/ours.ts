/**
 * Ours on a GPU: checked, then timed by the wall and, where it is granted, by the GPU's own clock, beside plain copies.
 */

import {
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  type ForwardOptions,
  region,
  release,
  toArray,
} from "../../mod.ts";
import type { WebGpuArray, WebGpuDevice } from "../../kernels/webgpu_device.ts";
import { numbersOf, place } from "../batches.ts";
import { assertRight, errorsOf } from "../errors.ts";
import { type Timed, workTimes } from "../measure.ts";
import { bytesOf, type Case, type Work, WORKS } from "./cases.ts";
import { copiesOf } from "./copies.ts";
import { type CaseTimes, COPIES, type Copy } from "./measured.ts";
import { gpuMilliseconds } from "./timestamps.ts";

/** Mean of x: sums of squares in float32 have no digit left there; float16 has few digits of its own. */
export const MEAN = { float32: 1e3, float16: 1 } as const;
/** Distance that no rounding of a storage explains, for values up to about 5. */
const WRONG = { float32: 1e-4, float16: 2e-2 } as const;

/** Checks and times a case; throws a RangeError where a result is wrong. */
export async function measureOurs(
  device: WebGpuDevice,
  one: Case,
  rounds: number,
): Promise<CaseTimes> {
  const { batch, dtype, fused } = one;
  const numbers = numbersOf(batch, { mean: MEAN[dtype], dtype });
  const placed = place(device, batch, numbers, { dtype, runningMean: MEAN[dtype] });
  const { state, x, dy, residual } = placed;
  const options: ForwardOptions<WebGpuArray> = fused ? { activation: "relu", residual } : {};
  const forward = batchNormForward(state, x, { device }, options);
  const back = batchNormBackward(forward.saved, dy, { device });
  const [y, dx] = [await toArray(device, forward.output), await toArray(device, back.gradInput)];
  const errors = errorsOf(batch, numbers, { y, dx }, fused);
  assertRight(errors, WRONG[dtype]);
  const discard = (body: (scope: typeof device) => unknown) => () =>
    region(device, (scope) => {
      body(scope as typeof device);
    });
  const copies = copiesOf(device.gpuDevice, Math.ceil(bytesOf(one) / 16) * 16);
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
  release(device, [placed, forward, back]);
  copies.destroy();
  const named = (times: readonly number[]) =>
    Object.fromEntries(names.map((name, i) => [name, times[i]])) as Record<Work | Copy, number>;
  return { case: one, errors, wall: named(wall), gpu: gpu.length > 0 ? named(gpu) : null };
}
