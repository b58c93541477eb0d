/**
 * jax-js and TensorFlow.js on their WebGPU backends, where they run on the adapter at hand.
 *
 * Neither has a fused batch norm with statistics of the batch: both compute it by the operators that they have, jax-js in one
 * compiled function.
 */

import { numbersOf } from "../batches.ts";
import { assertRight, errorsOf } from "../errors.ts";
import { workTimes } from "../measure.ts";
import type { Library } from "../peers/subject.ts";
import type { Case } from "./cases.ts";
import type { PeerTimes } from "./measured.ts";
import { MEAN } from "./ours.ts";

/** What float32 without care may be off by at a mean of 1e3. */
const WRONG = 1e-2;

export async function measurePeer(
  { open }: Library,
  { batch, dtype }: Case,
  rounds: number,
): Promise<PeerTimes> {
  const numbers = numbersOf(batch, { mean: MEAN[dtype] });
  const { forward, both, settle, results, dispose } = await open(batch, numbers);
  try {
    const { y, dx } = await results();
    const errors = errorsOf(batch, numbers, { y, dx });
    assertRight(errors, WRONG);
    const timed = [forward, both].map((run) => ({ run, settle }));
    const [forwardTime, bothTime] = await workTimes(timed, rounds);
    return { forward: forwardTime, both: bothTime, errors };
  } finally {
    await dispose();
  }
}
