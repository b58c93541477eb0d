/** A training step on a Wasm device with two threads, here and, where this is a worker, at once. */

import { wasmDevice } from "../../kernels/wasm_device.ts";
import {
  batchNormBackward,
  batchNormForward,
  type Device,
  initBatchNorm,
  tensor,
  toArray,
} from "../../mod.ts";

/** What came of it. */
export interface Outcome {
  readonly threads: number;
  readonly reason: string | null;
  /** The largest elements of the output and of the gradient. */
  readonly largest: readonly number[];
}

/** Takes a training step on a batch that is large enough for two threads; returns the largest results. */
export async function train<A>(device: Device<A>): Promise<readonly number[]> {
  const shape = [8, 16, 32, 64];
  const waves = (length: number) =>
    tensor(device, Float32Array.from({ length: 2 ** 18 }, (_, i) => Math.sin(i / length)), shape);
  const [x, dy] = [waves(7), waves(700)];
  const { output, saved } = batchNormForward(initBatchNorm(device, 16), x, { device });
  const { gradInput } = batchNormBackward(saved, dy, { device });
  const results = await Promise.all([output, gradInput].map((of) => toArray(device, of)));
  return results.map((values) => values.reduce((a, b) => Math.max(a, b)));
}

/** Opens a device with two threads, or as many as it gets, and trains on it. */
export async function trainHere(): Promise<Outcome> {
  await using device = await wasmDevice({ threads: 2, maximumBytes: 2 ** 28 });
  const { threads, threadsReason: reason } = device.info;
  return { threads, reason, largest: await train(device) };
}

/** An error for the report. */
export function say(error: Error): string {
  const { name, code, message } = error as Error & { readonly code?: string };
  return `${name} ${code}: ${message}`;
}

/** The scope of a worker, if this is one. */
const scope = globalThis as unknown as {
  readonly WorkerGlobalScope?: unknown;
  readonly postMessage: (outcome: Outcome | string) => void;
};
if (scope.WorkerGlobalScope) {
  trainHere().then(
    scope.postMessage,
    (error: Error) => scope.postMessage(say(error)),
  );
}
