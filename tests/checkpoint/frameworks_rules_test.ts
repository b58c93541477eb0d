/** Rules of momentum, and the biased variance, against Keras and Flax: tests/checkpoint/golden/rules.json. */

import {
  batchNormForward,
  batchNormInfer,
  type Momentum,
  referenceDevice,
  stateFromHost,
  stateToHost,
  tensor,
  toArray,
} from "../../mod.ts";
import { fromFlax, fromKeras } from "../../lib/checkpoint.ts";
import { assertClose, EPSILON } from "../kit.ts";
import golden from "./golden/rules.json" with { type: "json" };

const device = referenceDevice();
const [samples, places, C] = golden.shape;
const options = { count: null, runningVariance: "biased", epsilon: golden.epsilon } as const;
const format = "channelsLast";

for (const { kind, momentum, steps, y } of golden.layers) {
  Deno.test(`momentum ${JSON.stringify(momentum)} is ${kind}'s, set before each step, in training and evaluation`, async () => {
    const [mean, variance] = [new Float32Array(C), new Float32Array(C).fill(1)];
    const { state: first } = kind === "keras"
      ? fromKeras({ moving_mean: mean, moving_variance: variance }, options)
      : fromFlax({ mean, var: variance }, options);
    let state = stateFromHost(device, { ...first, momentum: momentum as Momentum });
    // Sums of up to 18 terms below 8, and squares of them, in float32; four steps add what they are off by.
    const close = { absolute: 18 * 8 * EPSILON.float32, relative: 18 * EPSILON.float32 };
    for (const [at, wanted] of steps.entries()) {
      const x = golden.x[at];
      const input = tensor(device, x, [x.length / places / C, C, places], { format });
      state = batchNormForward(state, input, { device }).state;
      const { runningMean, runningVar } = await stateToHost(device, state);
      assertClose(runningMean!, wanted.mean, close, `mean, step ${at}`);
      assertClose(runningVar!, wanted.variance, close, `variance, step ${at}`);
    }
    const input = tensor(device, golden.evaluated, [samples, C, places], { format });
    const output = batchNormInfer(state, input, { device });
    assertClose(await toArray(device, output), y, close, "evaluation");
  });
}
