/** Rules of momentum, and the biased variance, against Keras and Flax: tests/checkpoint/golden/rules.json. */

import assert from "node:assert/strict";
import {
  batchNormForward,
  batchNormInfer,
  batchRenormBackward,
  batchRenormForward,
  initBatchNorm,
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

for (const masked of [false, true]) {
  Deno.test(`batch renormalization${masked ? " by a mask" : ""} is Keras's, forward and backward`, async () => {
    const given = masked ? golden.maskedRenorm : golden.renorm;
    const { rmax, dmax, gamma, beta, mean, variance } = given;
    const host = await stateToHost(device, initBatchNorm(device, C, { eps: golden.epsilon }));
    const [weight, bias, runningMean, runningVar] = [gamma, beta, mean, variance]
      .map((values) => Float32Array.from(values));
    const state = stateFromHost(device, { ...host, weight, bias, runningMean, runningVar });
    const put = (values: readonly number[], channels = C) =>
      tensor(device, values, [samples, channels, places], { format });
    const options = { rmax, dmax, ...(masked && { weights: put(golden.mask, 1) }) };
    const forward = await batchRenormForward(state, put(given.x), { device }, options);
    const back = batchRenormBackward(forward.saved, put(given.dy), { device });
    // Sums of 10 terms below 8 in float32, of which some are of others; Keras adds 1e-7 to what it divides by under a mask.
    const close = { absolute: 32 * 8 * EPSILON.float32, relative: 32 * EPSILON.float32 };
    assertClose(await toArray(device, forward.output), given.y, close, "y");
    assertClose(await toArray(device, back.gradInput), given.dx, close, "dx");
    assertClose(await device.download(back.gradWeight!), given.dgamma, close, "dgamma");
    assertClose(await device.download(back.gradBias!), given.dbeta, close, "dbeta");
    const [r, d] = await Promise.all([forward.saved.r, forward.saved.d].map(device.download));
    assert(
      r.some((value) => value === rmax) && (masked || d.some((value) => Math.abs(value) === dmax)),
      "clipped",
    );
    assert(d.some((value) => Math.abs(value) < dmax), "and not clipped");
  });
}
