/**
 * What the suites of donation share: a call that is given an array must make of it what it makes of a copy.
 *
 * A device that overwrites wrongly shows it: one that reads what it has written, by the bits of the result; one that
 * writes over what is borrowed, by those of the same call made again; one whose memory two arrays share, by what is
 * uploaded next.
 */

import assert from "node:assert/strict";
import {
  type Backward,
  batchNormForward,
  type BatchNormState,
  type Device,
  type Format,
  initBatchNorm,
  release,
  type Tensor,
  tensor,
  withParameters,
} from "../mod.ts";
import { normalArray } from "./random.ts";

/** What a call makes: evaluation a tensor, backward gradients. */
export type Result<A> = Tensor<A> | Backward<A>;
export type Call<A> = (
  given: Tensor<A>,
  donate: boolean,
) => readonly Result<A>[] | Promise<readonly Result<A>[]>;

/**
 * Fails unless a call makes of an array that it is given what it makes of a copy, before and after, in memory of its own.
 */
export async function assertDonates<A>(
  device: Device<A>,
  make: () => Tensor<A>,
  call: Call<A>,
  { donates = true }: { readonly donates?: boolean } = {},
): Promise<void> {
  const [given, copy] = [make(), make()];
  const expected = await call(copy, false);
  const bits = await bitsOf(device, expected);
  const results = await call(given, true);
  assert.equal(device.owns(given.data), !donates);
  if (donates) {
    assert.throws(() => device.describe(given.data), /freed/);
    await assert.rejects(device.download(given.data), /freed/);
  }
  assert.deepEqual(meaningsOf(results), meaningsOf(expected));
  // Whoever takes the memory of a result for free gives it to the next that comes.
  const next = [like(device, copy, 21), like(device, copy, 22)];
  const all = await bitsOf(device, [...results, ...next]);
  assertBits(all.subarray(0, bits.length), bits, "as of a copy, whatever is uploaded next");
  const again = await call(copy, false);
  assertBits(await bitsOf(device, again), bits, "nothing that is borrowed has changed");
  // And whoever has it twice gives it to two.
  release(device, [results, next]);
  const { shape, dtype } = copy;
  const length = shape.reduce((product, extent) => product * extent, 1);
  const others = [1, 2, 3, 4].map((i) =>
    tensor(device, new Float32Array(length).fill(i), shape, { dtype })
  );
  assertBits(
    await bitsOf(device, others),
    bitsIn(Float32Array.from({ length: 4 * length }, (_, i) => 1 + Math.floor(i / length))),
    "four arrays side by side",
  );
  release(device, [expected, again, copy, given, others]);
}

/** The arrays of a result, in one order. */
function arraysOf<A>(result: Result<A>): readonly (A | null)[] {
  if ("data" in result) return [result.data];
  const { gradInput, gradWeight, gradBias, gradResidual } = result;
  return [gradInput.data, gradWeight, gradBias, gradResidual?.data ?? null];
}

/** The bits of all arrays, side by side, in one transfer where the device can. */
export async function bitsOf<A>(
  device: Device<A>,
  results: readonly Result<A>[],
): Promise<Uint32Array> {
  const arrays = results.flatMap(arraysOf).filter((array) => array !== null);
  if (device.downloadAll) return bitsIn(await device.downloadAll(arrays));
  const parts = await Promise.all(arrays.map((array) => device.download(array)));
  return bitsIn(Float32Array.from(parts.flatMap((part) => [...part])));
}

/** Fails unless all bits are equal; a difference of long arrays takes too long to print. */
function assertBits(actual: Uint32Array, expected: Uint32Array, what: string): void {
  assert.equal(actual.length, expected.length, what);
  const at = actual.findIndex((bits, i) => bits !== expected[i]);
  assert.equal(at, -1, `${what}: other bits at ${at}`);
}

function bitsIn(values: Float32Array<ArrayBuffer>): Uint32Array {
  return new Uint32Array(values.buffer);
}

/** Shapes, dtypes and formats, and which arrays there are. */
function meaningsOf<A>(results: readonly Result<A>[]) {
  const meaning = ({ shape, dtype, format }: Tensor<A>) => ({ shape, dtype, format });
  return results.map((result) =>
    "data" in result ? meaning(result) : {
      gradInput: meaning(result.gradInput),
      gradResidual: result.gradResidual && meaning(result.gradResidual),
      vectors: [result.gradWeight !== null, result.gradBias !== null],
    }
  );
}

/** A tensor like another with numbers of its own. */
export function like<A>(
  device: Device<A>,
  { shape, dtype, format }: Tensor<A>,
  seed: number,
  order: Format = format,
): Tensor<A> {
  const length = shape.reduce((product, extent) => product * extent, 1);
  return tensor(device, normalArray(length, seed), shape, { dtype, format: order });
}

/** A state whose vectors are all its own. */
export function stateOf<A>(
  device: Device<A>,
  channels: number,
  trackRunningStats = true,
  seed = 1,
): BatchNormState<A> {
  const fresh = initBatchNorm(device, channels, { trackRunningStats });
  const batch = tensor(device, normalArray(4 * channels, seed, 1, 2), [4, channels]);
  return withParameters(batchNormForward(fresh, batch, { device }).state, {
    weight: device.upload(normalArray(channels, seed + 1, 1, 0.5)),
    bias: device.upload(normalArray(channels, seed + 2)),
  });
}
