/** A training step that is large enough for two threads. */

import {
  batchNormBackward,
  batchNormForward,
  type Device,
  initBatchNorm,
  referenceDevice,
  tensor,
  toArray,
} from "../../mod.ts";
import { assertClose } from "../kit.ts";

/** Takes it; returns the largest elements of the output and of the gradient. */
async function train<A>(device: Device<A>): Promise<readonly number[]> {
  const shape = [8, 16, 32, 64];
  const waves = (length: number) =>
    tensor(device, Float32Array.from({ length: 2 ** 18 }, (_, i) => Math.sin(i / length)), shape);
  const [x, dy] = [waves(7), waves(700)];
  const { output, saved } = batchNormForward(initBatchNorm(device, 16), x, { device });
  const { gradInput } = batchNormBackward(saved, dy, { device });
  const results = await Promise.all([output, gradInput].map((of) => toArray(device, of)));
  return results.map((values) => values.reduce((a, b) => Math.max(a, b)));
}

/** Fails unless a device trains as the reference device does. */
export async function assertTrains<A>(device: Device<A>): Promise<void> {
  const expected = await train(referenceDevice());
  // A few units in the last place of results of about 1.
  const close = { absolute: 2e-6, relative: 0 };
  assertClose(await train(device), expected, close, "the largest elements");
}
