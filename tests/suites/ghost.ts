/** Ghost batches on a device. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  batchNormBackward,
  batchNormBackwardGhost,
  batchNormForward,
  batchNormForwardGhost,
  type Device,
  type DType,
  type Format,
  initBatchNorm,
  runRanks,
  stateFromHost,
  stateToHost,
  syncBatchNormForwardGhost,
  syncBatchNormForwardGhostBlocking,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import golden from "../golden/rules.json" with { type: "json" };
import { assertClose, type DeviceKit, EPSILON, testsOf, throwsLike } from "../kit.ts";
import { permute } from "../oracle.ts";
import { fewOf } from "../few.ts";
import { normalArray } from "../random.ts";
import { census } from "../recording.ts";

const FORMATS: readonly Format[] = ["channelsFirst", "channelsLast"];
const C = 3;
const INNER = 2;
const EACH = C * INNER;

/** Registers the tests of ghost batches for a device. */
export function ghostSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);
  const dtypes = (device: Device<A>): readonly DType[] =>
    device.info.float16 ? ["float32", "float16"] : ["float32"];
  const slackOf = (dtype: DType) => {
    const slack = 16 * kit.ulps * EPSILON[dtype];
    return { absolute: slack, relative: slack };
  };
  /** Samples in logical order as a tensor. */
  const put = (
    device: Device<A>,
    values: ArrayLike<number>,
    { dtype = "float32", format = "channelsFirst" }: { dtype?: DType; format?: Format } = {},
  ) => {
    const lying = format === "channelsLast"
      ? permute(values, { channels: C, inner: INNER }, format)
      : Float32Array.from(values);
    return tensor(device, lying, [values.length / EACH, C, INNER], { dtype, format });
  };
  const read = async (device: Device<A>, of: Tensor<A>) => {
    const values = await toArray(device, of);
    return [
      ...of.format === "channelsLast"
        ? permute(values, { channels: C, inner: INNER }, "channelsFirst")
        : values,
    ];
  };

  test("ghost batches have PyTorch's numbers of each group, on one rank and on two", async (device) => {
    const { x, dy, size, eps, momentum, weight, bias, results } = golden.ghost;
    for (const [d, dtype] of dtypes(device).entries()) {
      for (const format of kit.ways ? [FORMATS[1 - d]] : FORMATS) {
        for (const runningVariance of ["unbiased", "biased"] as const) {
          for (const cuts of kit.cases ? [[0, 6, 8]] : [[0, 8], [0, 6, 8], [0, 0, 3, 8]]) {
            const parts = await runRanks(cuts.length - 1, async (group) => {
              const cut = (values: readonly number[]) =>
                values.slice(cuts[group.rank] * EACH, cuts[group.rank + 1] * EACH);
              const host = await stateToHost(
                device,
                initBatchNorm(device, C, { eps, momentum, runningVariance }),
              );
              const vectors = { weight: Float32Array.from(weight), bias: Float32Array.from(bias) };
              const state = stateFromHost(device, { ...host, ...vectors });
              const input = put(device, cut(x), { dtype, format });
              const options = { ghost: size };
              const { output, saved, state: next } = await syncBatchNormForwardGhost(
                state,
                input,
                { device, group },
                options,
              );
              const gradOutput = put(device, cut(dy), { dtype, format: FORMATS[group.rank % 2] });
              const back = batchNormBackwardGhost(saved, gradOutput, { device });
              assert.deepEqual([output.format, back.gradInput.format], [format, format]);
              return {
                y: await read(device, output),
                dx: await read(device, back.gradInput),
                dweight: await device.download(back.gradWeight!),
                dbias: await device.download(back.gradBias!),
                next: await stateToHost(device, next),
              };
            });
            const what = `${dtype} ${format} ${runningVariance} ${cuts}`;
            for (const name of ["y", "dx"] as const) {
              assertClose(parts.flatMap((part) => part[name]), results[name], slackOf(dtype), what);
            }
            for (const name of ["dweight", "dbias"] as const) {
              const total = parts.map((part) => part[name]).reduce((a, b) =>
                a.map((v, i) => v + b[i])
              );
              assertClose(total, results[name], slackOf(dtype), `${name} ${what}`);
            }
            for (const { next } of parts) {
              assert.equal(next.numBatchesTracked, 1);
              const close = slackOf("float32");
              assertClose(next.runningMean!, results.runningMean, close, `mean ${what}`);
              assertClose(next.runningVar!, results[runningVariance], close, `variance ${what}`);
              assert.deepEqual(next.runningVar, parts[0].next.runningVar);
            }
          }
        }
      }
    }
  });

  test("partitions at multiples of the group's size are one rank: outputs, gradients, residuals, state", async (device) => {
    const way = fc.record({
      ghost: fc.integer({ min: 1, max: 3 }),
      relu: fc.boolean(),
      format: fc.constantFrom(...FORMATS),
    });
    const rest = fc.record({
      ranks: fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 3 }),
      more: fc.nat(2),
      momentum: fc.constantFrom(0.25, 1, null),
      blocking: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(
        fewOf(way, kit.ways && Math.ceil(kit.ways / 2)),
        rest,
        async ({ ghost, relu, format }, { ranks, more, momentum, blocking }) => {
          const counts = ranks.map((groups) => groups * ghost);
          counts[counts.length - 1] += more % ghost;
          const samples = counts.reduce((a, b) => a + b);
          const [x, dy, r] = [1, 2, 3].map((seed) => normalArray(samples * EACH, seed, 2));
          const activation = relu ? "relu" as const : undefined;
          const state = initBatchNorm(device, C, { momentum });
          const residual = put(device, r, { format: FORMATS[+relu] });
          const options = { ghost, activation };
          const input = put(device, x, { format });
          const whole = batchNormForwardGhost(state, input, { device }, { ...options, residual });
          const back = batchNormBackwardGhost(whole.saved, put(device, dy), { device });
          const parts = await runRanks(counts.length, async (group) => {
            const at = counts.slice(0, group.rank).reduce((a, b) => a + b, 0);
            const cut = (values: Float32Array, format?: Format) =>
              put(device, values.slice(at * EACH, (at + counts[group.rank]) * EACH), { format });
            const all = { ...options, residual: cut(r, FORMATS[+relu]) };
            const own = cut(x, format);
            const forward = await syncBatchNormForwardGhost(state, own, { device, group }, all);
            const grads = batchNormBackwardGhost(forward.saved, cut(dy), { device });
            return {
              y: await read(device, forward.output),
              dx: await read(device, grads.gradInput),
              dresidual: await read(device, grads.gradResidual!),
              next: await stateToHost(device, forward.state),
            };
          });
          const wanted = {
            y: await read(device, whole.output),
            dx: await read(device, back.gradInput),
            dresidual: await read(device, back.gradResidual!),
          };
          for (const name of ["y", "dx", "dresidual"] as const) {
            assertClose(
              parts.flatMap((part) => part[name]),
              wanted[name],
              slackOf("float32"),
              name,
            );
          }
          const expected = await stateToHost(device, whole.state);
          for (const { next } of parts) {
            assert.equal(next.numBatchesTracked, samples === 0 ? 0 : 1);
            assertClose(next.runningMean!, expected.runningMean!, slackOf("float32"), "mean");
            assertClose(next.runningVar!, expected.runningVar!, slackOf("float32"), "variance");
          }
          if (!blocking || !device.toWireNow) return;
          const group = {
            rank: 0,
            worldSize: 2,
            allReduceBlocking: (local: Float64Array | (() => Float64Array)) =>
              typeof local === "function" ? local() : local,
          };
          const blocked = syncBatchNormForwardGhostBlocking(
            state,
            input,
            { device, group },
            options,
          );
          const host = await stateToHost(device, blocked.state);
          assertClose(host.runningVar!, expected.runningVar!, slackOf("float32"), "variance");
        },
      ),
      { numRuns: Math.min(kit.cases ?? 10, 10), seed: 5 },
    );
  });

  test("a group of all samples is batchNormForward(), and nothing is left beside the results", async (device) => {
    const state = initBatchNorm(device, C);
    const x = put(device, normalArray(5 * EACH, 4));
    const plain = batchNormForward(state, x, { device });
    const { device: counted, alive } = census(device);
    const one = batchNormForwardGhost(state, x, { device: counted }, { ghost: 9 });
    assert.equal(alive(), 4, "output, moments, running statistics");
    assert.deepEqual(await toArray(device, one.output), await toArray(device, plain.output));
    const is = await stateToHost(device, one.state);
    assert.deepEqual(is, await stateToHost(device, plain.state));
    const many = batchNormForwardGhost(state, x, { device: counted }, { ghost: 2 });
    assert.equal(alive(), 4 + 6, "output, three moments, running statistics");
    const dy = put(counted, normalArray(5 * EACH, 5));
    const before = alive();
    const back = batchNormBackwardGhost(many.saved, dy, { device: counted });
    assert.equal(alive() - before, 3);
    const again = batchNormBackwardGhost(many.saved, dy, { device: counted }, { donate: true });
    assert(!device.owns(dy.data));
    assert.deepEqual(await toArray(device, again.gradInput), await toArray(device, back.gradInput));
    const whole = batchNormBackward(plain.saved, put(device, normalArray(5 * EACH, 5)), { device });
    const single = batchNormBackwardGhost(one.saved, put(device, normalArray(5 * EACH, 5)), {
      device,
    });
    assert.deepEqual(
      await toArray(device, single.gradInput),
      await toArray(device, whole.gradInput),
    );
  });

  test("a group of one value per channel is refused on all ranks, and so is what is no size", async (device) => {
    const state = initBatchNorm(device, 2);
    const x = tensor(device, [1, 2, 3, 4, 5, 6], [3, 2]);
    const forward = (ghost: number) => () => batchNormForwardGhost(state, x, { device }, { ghost });
    throwsLike(
      forward(2),
      RangeError,
      /more than 1 value per channel.*ghost 2 and 3 samples.*from sample 2 on is 1/,
    );
    throwsLike(forward(1), RangeError, /more than 1 value/);
    throwsLike(forward(0), RangeError, /ghost, the samples of a group, must be an integer >= 1/);
    throwsLike(forward(1.5), RangeError, /ghost/);
    await assert.rejects(
      runRanks(2, (group) => {
        const own = group.rank === 0 ? x : tensor(device, [1, 2, 3, 4], [2, 2]);
        return syncBatchNormForwardGhost(state, own, { device, group }, { ghost: 2 });
      }),
      /more than 1 value per channel/,
    );
    throwsLike(
      () => batchNormForwardGhost(state, x, { device }, undefined as never),
      TypeError,
      /options must be a record/,
    );
    await assert.rejects(
      runRanks(2, (group) => {
        const own = group.rank === 0 ? x : undefined as unknown as typeof x;
        return syncBatchNormForwardGhost(state, own, { device, group }, { ghost: 3 });
      }),
      /the input must be a tensor/,
    );
    const { saved } = batchNormForward(state, x, { device });
    throwsLike(
      () => batchNormBackwardGhost(saved as never, x, { device }),
      TypeError,
      /saved must be that of batchNormForwardGhost/,
    );
  });
}
