/**
 * PyTorch's own tests of SyncBatchNorm, by their numbers in the contract, at PyTorch's tolerances. That about second
 * derivatives (18 in part) comes with what it tests.
 */

import assert from "node:assert/strict";
import { toStateDict } from "../../lib/checkpoint.ts";
import {
  applyLayer,
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  convertSyncBatchNorm,
  type Device,
  type Format,
  initBatchNorm,
  initLayer,
  type ProcessGroup,
  region,
  runRanks,
  stateToHost,
  syncBatchNormBackward,
  syncBatchNormForward,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import { momentsWire, sumsWire } from "../../lib/device_author.ts";
import { halves } from "../halves.ts";
import { assertClose, type DeviceKit, testsOf } from "../kit.ts";
import { trainNet } from "../net.ts";
import * as oracle from "../oracle.ts";
import { normalArray } from "../random.ts";

const FLOAT32 = { relative: 1.3e-6, absolute: 1e-5 };
const FLOAT16 = { relative: 1e-3, absolute: 1e-5 };

/** Registers PyTorch's tests for a device. */
export function pytorchSuite<A>(kit: DeviceKit<A>): void {
  const register = testsOf(kit);
  const test: typeof register = (name, body) => register(`PyTorch test ${name}`, body);
  const testHalf = (name: string, body: (device: Device<A>) => Promise<void> | void) =>
    test(name, (device) => {
      if (device.info.float16) return body(device);
      assert.throws(() => tensor(device, [1, 2], [2, 1], { dtype: "float16" }), /float16/);
    });

  const nets: [string, boolean, (rank: number) => number][] = [
    ["1: 5 iterations, local batch 2, equal one process", true, (rank) => 2 * rank],
    ["2: the same with affine off", false, (rank) => 2 * rank],
    ["3: uneven batches have exact gradients", true, (rank) => (rank + 3) * rank / 2],
  ];
  for (const [name, affine, start] of nets) {
    for (const worldSize of [2, 4]) {
      test(`${name}, ${worldSize} ranks`, async (device) => {
        const run = { rows: start(worldSize), affine, iterations: 5 };
        const alone = await trainNet(device, run, [0, run.rows]);
        const ranks = await runRanks(
          worldSize,
          (group) => trainNet(device, run, [start(group.rank), start(group.rank + 1)], group),
        );
        for (const snapshots of ranks) {
          assert.deepEqual(snapshots, ranks[0], "replicas stay equal");
          snapshots.forEach((snapshot, i) =>
            assertClose(snapshot, alone[i], FLOAT32, `iteration ${i}`)
          );
        }
        assert.notDeepEqual(alone[4], alone[0]);
      });
    }
  }

  test("4: 100 steps of very different sizes give pooled running statistics", async (device) => {
    const worldSize = 4;
    const values = (rank: number) => [0.1 ** (rank - 1), 0.3 ** (rank - 1)];
    const sizes = [0, 1, 2, 3].map((rank) => 10 ** (rank + 1));
    const states = await runRanks(worldSize, (group) =>
      region(device, async (scope) => {
        const size = sizes[group.rank];
        const [a, b] = values(group.rank);
        const plane = [...new Array(size).fill(a), ...new Array(size).fill(b)];
        const input = tensor(scope, [...plane, ...plane], [2, 2, size]);
        const dy = tensor(scope, new Float32Array(4 * size).fill(1 / (4 * size)), [2, 2, size]);
        let state = initBatchNorm(scope, 2, { momentum: 0.99 });
        for (let step = 0; step < 100; step++) {
          state = await region(scope, async (inner) => {
            const effects = { device: inner, group };
            const forward = await syncBatchNormForward(state, input, effects);
            await syncBatchNormBackward(forward.saved, dy, effects);
            return forward.state;
          });
        }
        return await stateToHost(scope, state);
      }));
    const total = 2 * sizes.reduce((a, b) => a + b);
    for (const channel of [0, 1]) {
      // 0.1 ** k in float32, as the tensors hold them.
      const x = sizes.map((_, rank) => Math.fround(values(rank)[channel]));
      const mean = x.reduce((t, value, r) => t + 2 * sizes[r] * value, 0) / total;
      const m2 = x.reduce((t, value, r) => t + 2 * sizes[r] * (value - mean) ** 2, 0);
      for (const { runningMean, runningVar } of states) {
        assertClose([runningMean?.[channel] ?? NaN], [mean], FLOAT32, "running mean");
        assertClose(
          [runningVar?.[channel] ?? NaN],
          [m2 / (total - 1)],
          FLOAT32,
          "running variance",
        );
      }
    }
  });

  const equalOneProcess: [string, number[], Format][] = [
    ["5: BatchNorm1d on (2W, 2)", [2, 2], "channelsFirst"],
    ["6: one value per rank", [1, 2], "channelsFirst"],
    ["7: channels-last (2W, 2, 4, 4)", [2, 2, 4, 4], "channelsLast"],
    ["7: channels-last (2W, 2, 4, 4, 4)", [2, 2, 4, 4, 4], "channelsLast"],
    ["19: (W * 2, 1, 9, 9)", [2, 1, 9, 9], "channelsLast"],
    ["19: (W * 2, 9, 1, 1)", [2, 9, 1, 1], "channelsLast"],
    ["19: (W, 1)", [1, 1], "channelsFirst"],
  ];
  for (const [name, [local, ...rest], format] of equalOneProcess) {
    test(`${name}: equal one process`, async (device) => {
      const worldSize = 3;
      const size = local * rest.reduce((a, b) => a * b);
      const all = normalArray(worldSize * size, 6);
      const gradient = normalArray(worldSize * size, 7);
      const state = initBatchNorm(device, rest[0]);
      const run = async (values: Float32Array, dys: Float32Array, group?: ProcessGroup) => {
        const shape = [values.length / size * local, ...rest];
        const [input, dy] = [values, dys].map((v) => tensor(device, v, shape, { format }));
        const forward = group
          ? await syncBatchNormForward(state, input, { device, group })
          : batchNormForward(state, input, { device });
        const { saved } = forward;
        const backward = saved.kind === "group" && group
          ? await syncBatchNormBackward(saved, dy, { device, group })
          : saved.kind === "local" && batchNormBackward(saved, dy, { device });
        assert(backward);
        assert.equal(forward.output.format, format);
        assert.equal(backward.gradInput.format, format);
        return {
          y: [...await toArray(device, forward.output)],
          dx: [...await toArray(device, backward.gradInput)],
          state: await stateToHost(device, forward.state),
        };
      };
      const alone = await run(all, gradient);
      const ranks = await runRanks(worldSize, (group) => {
        const [from, to] = [group.rank * size, (group.rank + 1) * size];
        return run(all.slice(from, to), gradient.slice(from, to), group);
      });
      assertClose(ranks.flatMap(({ y }) => y), alone.y, FLOAT32, "output");
      assertClose(ranks.flatMap(({ dx }) => dx), alone.dx, FLOAT32, "gradInput");
      for (const { state: { runningMean, runningVar } } of ranks) {
        assertClose(runningMean ?? [], alone.state.runningMean ?? [1], FLOAT32, "running mean");
        assertClose(runningVar ?? [], alone.state.runningVar ?? [1], FLOAT32, "running variance");
      }
    });
  }

  test("7: channels-last gives the values of channels-first", async (device) => {
    const shape = [4, 3, 2, 5];
    const extents = { channels: 3, inner: 10 };
    const values = normalArray(120, 8);
    const state = initBatchNorm(device, 3);
    const first = batchNormForward(state, tensor(device, values, shape), { device });
    const last = batchNormForward(
      state,
      tensor(device, oracle.permute(values, extents, "channelsLast"), shape, {
        format: "channelsLast",
      }),
      { device },
    );
    assert.equal(last.output.format, "channelsLast");
    assertClose(
      oracle.permute(await toArray(device, last.output), extents, "channelsFirst"),
      await toArray(device, first.output),
      FLOAT32,
      "output",
    );
  });

  testHalf("8: float16 in, float16 out, float32 parameters and gradients", async (device) => {
    const state = initBatchNorm(device, 4);
    const values = halves(normalArray(80, 9));
    await runRanks(2, async (group) => {
      const part = values.slice(40 * group.rank, 40 * group.rank + 40);
      const input = tensor(device, part, [1, 4, 10], { dtype: "float16" });
      const { output, saved } = await syncBatchNormForward(state, input, { device, group });
      const backward = await syncBatchNormBackward(saved, input, { device, group });
      assert.deepEqual([output.dtype, backward.gradInput.dtype], ["float16", "float16"]);
      for (const vector of [backward.gradWeight, backward.gradBias]) {
        assert(vector !== null && device.describe(vector).dtype === "float32");
      }
      const expected = oracle.trainForward(
        { values, channels: 4, inner: 10 },
        { weight: null, bias: null, eps: 1e-5 },
      );
      const mine = expected.slice(40 * group.rank, 40 * group.rank + 40);
      assertClose(await toArray(device, output), mine, FLOAT16, "output");
    });
  });

  test("9: ranks 0..3 and 4..7 of 8 synchronise apart", async (device) => {
    const all = normalArray(8 * 6, 10);
    const state = initBatchNorm(device, 2);
    const outputs = await runRanks(8, async (world) => {
      const group = await world.split(Math.floor(world.rank / 4));
      assert.deepEqual([group.rank, group.worldSize], [world.rank % 4, 4]);
      const input = tensor(device, all.slice(6 * world.rank, 6 * world.rank + 6), [1, 2, 3]);
      const { output } = await syncBatchNormForward(state, input, { device, group });
      return [...await toArray(device, output)];
    });
    for (const half of [0, 1]) {
      const input = tensor(device, all.slice(24 * half, 24 * half + 24), [4, 2, 3]);
      const alone = batchNormForward(state, input, { device });
      const together = outputs.slice(4 * half, 4 * half + 4).flat();
      assertClose(together, await toArray(device, alone.output), FLOAT32, `half ${half}`);
    }
  });

  test("9: conversion passes a nested group down", async (device) => {
    const values = normalArray(4 * 6, 23);
    const norm = initLayer(device, "batchNorm1d", 2);
    const model = { body: { blocks: [{ norm }] }, tail: norm };
    const outputs = await runRanks(4, async (world) => {
      const half = await world.split(world.rank < 2 ? 0 : 1);
      const { body, tail } = convertSyncBatchNorm(model, { processGroup: "half" });
      const [{ norm: nested }] = body.blocks;
      assert.equal(nested, tail);
      assert.equal(nested.processGroup, "half");
      const input = tensor(device, values.slice(6 * world.rank, 6 * world.rank + 6), [3, 2]);
      const { output } = await applyLayer(nested, input, { device, groups: { half } });
      return [...await toArray(device, output)];
    });
    for (const half of [0, 1]) {
      const input = tensor(device, values.slice(12 * half, 12 * half + 12), [6, 2]);
      const { output } = batchNormForward(norm.state, input, { device });
      const together = outputs.slice(2 * half, 2 * half + 2).flat();
      assertClose(together, await toArray(device, output), FLOAT32, `half ${half}`);
    }
  });

  test("10: training communicates, evaluation on one rank alone does not", async (device) => {
    const state = initBatchNorm(device, 2);
    const values = normalArray(320, 11);
    let collectives = 0;
    await runRanks(2, async ({ rank, worldSize, allReduce }) => {
      const group = {
        worldSize,
        allReduce: ((...args) => (collectives++, allReduce(...args))) as typeof allReduce,
      };
      const input = tensor(device, values, [10, 2, 4, 4]);
      const forward = await syncBatchNormForward(state, input, { device, group });
      if (rank !== 0) return;
      const before = collectives;
      const evaluated = batchNormInfer(forward.state, input, { device });
      assert.equal(collectives, before);
      const { runningMean, runningVar } = await stateToHost(device, forward.state);
      assert(runningMean && runningVar);
      const expected = oracle.forward(
        { values, channels: 2, inner: 16 },
        { count: 0, mean: [...runningMean], variance: [...runningVar] },
        { weight: null, bias: null, eps: 1e-5 },
      );
      assertClose(await toArray(device, evaluated), expected, FLOAT32, "evaluation");
    });
    assert.equal(collectives, 2);
  });

  test("11: uneven numbers of steps are an error at the end of the shorter rank", async (device) => {
    const state = initBatchNorm(device, 2);
    const done = [0, 0];
    const run = runRanks(2, async (group) => {
      for (let step = 0; step < (group.rank === 0 ? 5 : 10); step++) {
        const input = tensor(device, [1, 2, 3, 4], [2, 2]);
        await syncBatchNormForward(state, input, { device, group });
        done[group.rank]++;
      }
    });
    await assert.rejects(
      run,
      /call 6, allReduce "syncBatchNormForward C=2 float32", as rank 0 ended/,
    );
    assert.deepEqual(done, [5, 5]);

    // Ranks that close with a barrier all get the error.
    const errors = await runRanks(2, async (group) => {
      try {
        for (let step = 0; step < (group.rank === 0 ? 5 : 10); step++) {
          const input = tensor(device, [1, 2, 3, 4], [2, 2]);
          await syncBatchNormForward(state, input, { device, group });
        }
        await group.barrier();
        return "none";
      } catch (error) {
        return (error as Error).message;
      }
    });
    assert.equal(errors[0], errors[1]);
    assert.match(errors[0], /call 6 as the ranks disagree: rank 0 called barrier/);
  });

  test("12: rank 0 empty, then all empty", async (device) => {
    const state = initBatchNorm(device, 2);
    const image = normalArray(2 * 143, 12);
    await runRanks(3, async (group) => {
      const effects = { device, group };
      const full = tensor(device, image, [1, 2, 11, 13]);
      const empty = tensor(device, [], [0, 2, 11, 13]);
      const input = group.rank === 0 ? empty : full;
      const some = await syncBatchNormForward(state, input, effects);
      const back = await syncBatchNormBackward(some.saved, input, effects);
      const host = await stateToHost(device, some.state);
      assert.equal(host.numBatchesTracked, 1);
      for (const vector of [back.gradWeight, back.gradBias]) {
        assert(vector !== null);
        const values = await device.download(vector);
        if (group.rank === 0) assert.deepEqual(values, new Float32Array(2));
        assert(values.every(Number.isFinite));
      }
      assert((await toArray(device, some.output)).every(Number.isFinite));

      const none = await syncBatchNormForward(state, empty, effects);
      const backNone = await syncBatchNormBackward(none.saved, empty, effects);
      assert.equal(none.state, state, "running statistics are untouched");
      assert.equal((await toArray(device, backNone.gradInput)).length, 0);
      assert(backNone.gradWeight !== null);
      assert.deepEqual(await device.download(backNone.gradWeight), new Float32Array(2));
    });
  });

  test("12: Conv-BN-Linear with 0 or 3 images on a rank", async (device) => {
    // A 1x1 convolution of 2 to 4 channels before, the mean over positions and a linear layer after.
    const state = initBatchNorm(device, 4);
    const images = normalArray(3 * 2 * 900, 13);
    const kernel = normalArray(8, 14);
    const head = normalArray(4, 15);
    const step = async (count: number, group?: ProcessGroup) => {
      const x = Float32Array.from({ length: count * 4 * 900 }, (_, at) => {
        const [n, c, i] = [Math.floor(at / 3600), Math.floor(at / 900) % 4, at % 900];
        return kernel[2 * c] * images[n * 1800 + i] +
          kernel[2 * c + 1] * images[n * 1800 + 900 + i];
      });
      const dy = x.map((_, at) => head[Math.floor(at / 900) % 4] / 900 * (1 + at % 3));
      const [input, gradient] = [x, dy].map((v) => tensor(device, v, [count, 4, 30, 30]));
      if (!group) {
        const { saved, output } = batchNormForward(state, input, { device });
        return { output, gradInput: batchNormBackward(saved, gradient, { device }).gradInput };
      }
      const effects = { device, group };
      const { saved, output } = await syncBatchNormForward(state, input, effects);
      const { gradInput } = await syncBatchNormBackward(saved, gradient, effects);
      return { output, gradInput };
    };
    const alone = await step(3);
    for (const holder of [0, 1]) {
      const ranks = await runRanks(2, (group) => step(group.rank === holder ? 3 : 0, group));
      for (const name of ["output", "gradInput"] as const) {
        assertClose(
          await toArray(device, ranks[holder][name]),
          await toArray(device, alone[name]),
          FLOAT32,
          name,
        );
        assert.equal((await toArray(device, ranks[1 - holder][name])).length, 0);
      }
    }
  });

  test("13: conversion leaves an instance norm as it is, and every state entry the same", async (device) => {
    const model = {
      batchNorm: initLayer(device, "batchNorm1d", 100),
      instanceNorm: { kind: "instanceNorm1d", numFeatures: 100, eps: 1e-5, weight: null },
    };
    const converted = convertSyncBatchNorm(model);
    assert.equal(converted.batchNorm.processGroup, "world");
    assert.equal(converted.instanceNorm, model.instanceNorm);
    const [before, after] = [
      await toStateDict(device, model),
      await toStateDict(device, converted),
    ];
    assert.equal(before.size, 5);
    assert.deepEqual(after, before);
  });

  test("14: gradOutput may have the other format, counts [5, 5, 5]", async (device) => {
    const extents = { channels: 3, inner: 2 };
    const shape = [2, 3, 2, 1];
    const [values, gradient] = [normalArray(12, 16), normalArray(12, 17)];
    const make = (v: Float32Array, format: Format): Tensor<A> =>
      tensor(device, format === "channelsLast" ? oracle.permute(v, extents, format) : v, shape, {
        format,
      });
    // Three ranks of 5 values each would bring these moments and sums.
    const [mean, m2] = [[0.1, -0.2, 0.3], [9, 12, 15]];
    const sums = [[0.4, -0.5, 0.6], [1.5, 0.75, -3]];
    const weight = device.upload(Float32Array.of(1, 0.5, -2));
    const expected = Array.from(values, (x, at) => {
      const c = Math.floor(at / 2) % 3;
      const s = 1 / Math.sqrt(m2[c] / 15 + 1e-5);
      return [1, 0.5, -2][c] * s *
        (gradient[at] - sums[0][c] / 15 - (x - mean[c]) * s * s * sums[1][c] / 15);
    });
    for (const format of ["channelsFirst", "channelsLast"] as const) {
      for (const gradFormat of ["channelsFirst", "channelsLast"] as const) {
        const moments = device.fromWire(momentsWire, Float64Array.of(15, ...mean, ...m2));
        const total = device.fromWire(sumsWire, Float64Array.from(sums.flat()));
        const pass = {
          input: make(values, format),
          gradOutput: make(gradient, gradFormat),
          statistics: { source: "batch", moments } as const,
        };
        const { gradInput } = device.gradients({
          ...pass,
          sums: { local: device.gradientSums(pass), total },
          affine: { weight, bias: null, eps: 1e-5 },
        });
        const memory = await device.download(gradInput);
        const actual = format === "channelsLast"
          ? oracle.permute(memory, extents, "channelsFirst")
          : memory;
        assertClose(actual, expected, FLOAT32, `${format}, gradOutput ${gradFormat}`);
      }
    }
  });

  test("15: (1, 96, 112, 112) has equal means in both formats", async (device) => {
    const extents = { channels: 96, inner: 112 * 112 };
    const values = normalArray(96 * 112 * 112, 18, 3);
    const means = [];
    for (const format of ["channelsFirst", "channelsLast"] as const) {
      const data = format === "channelsLast" ? oracle.permute(values, extents, format) : values;
      const input = tensor(device, data, [1, 96, 112, 112], { format });
      const moments = device.moments({ input });
      means.push((await device.toWire(moments)).slice(1, 97));
      device.free(input.data, moments);
    }
    const { mean } = oracle.statistics({ values, ...extents });
    assertClose(means[0], mean, FLOAT32, "channelsFirst");
    assertClose(means[1], means[0], { relative: 1e-7 * kit.ulps, absolute: 0 }, "channelsLast");
  });

  const giant = kit.giants ? testHalf : () => {};
  const wide = kit.giants === "narrow" ? 8 : 80;
  giant(`16: (4, ${wide}, 500, 500) in float16 stays finite`, async (device) => {
    const pattern = Float32Array.from(normalArray(1009, 19), (value) => 10 + value);
    const values = new Float32Array(4 * wide * 500 * 500);
    for (let at = 0; at < values.length; at += 1009) {
      values.set(pattern.subarray(0, Math.min(1009, values.length - at)), at);
    }
    await region(device, async (scope) => {
      const input = tensor(scope, values, [4, wide, 500, 500], { dtype: "float16" });
      const forward = batchNormForward(initBatchNorm(scope, wide), input, { device: scope });
      const { runningMean, runningVar } = await stateToHost(scope, forward.state);
      assert(runningMean?.every((value) => Math.abs(value - 1) < 0.01));
      assert(runningVar?.every((value) => Math.abs(value - 1) < 0.01));
      const output = await toArray(scope, forward.output);
      let largest = 0;
      for (let at = 0; at < output.length; at++) largest = Math.max(largest, Math.abs(output[at]));
      assert(largest > 1 && largest < 10);
    });
  });

  test("17: the cumulative average of two passes is their mean", async (device) => {
    const passes = [normalArray(12, 20, 5), normalArray(12, 21, -1, 2)];
    let state = initBatchNorm(device, 3, { momentum: null });
    for (const values of passes) {
      ({ state } = batchNormForward(state, tensor(device, values, [4, 3]), { device }));
    }
    const { runningMean, runningVar, numBatchesTracked } = await stateToHost(device, state);
    const stats = passes.map((values) => oracle.statistics({ values, channels: 3, inner: 1 }));
    const average = (name: "mean" | "variance", scale: number) =>
      [0, 1, 2].map((c) => scale * (stats[0][name][c] + stats[1][name][c]) / 2);
    assert.equal(numBatchesTracked, 2);
    assertClose(runningMean ?? [], average("mean", 1), FLOAT32, "running mean");
    assertClose(runningVar ?? [], average("variance", 4 / 3), FLOAT32, "running variance");
  });

  const giants = kit.giants ? [[880801, 1, 1, 1]] : [];
  for (const shape of [[4, 1, 9, 9], [4, 9, 1, 1], [3, 1], [2, 1], ...giants]) {
    for (const format of ["channelsFirst", "channelsLast"] as const) {
      test(`19: shape (${shape.join(", ")}), ${format}`, async (device) => {
        const values = normalArray(shape.reduce((a, b) => a * b), 22, 2);
        // With one channel or one position the two formats are the same memory.
        const input = tensor(device, values, shape, { format });
        const state = initBatchNorm(device, shape[1]);
        const { output, saved } = batchNormForward(state, input, { device });
        const { gradInput } = batchNormBackward(saved, input, { device });
        const batch = {
          values,
          channels: shape[1],
          inner: shape.slice(2).reduce((a, b) => a * b, 1),
        };
        const parameters = { weight: null, bias: null, eps: 1e-5 };
        const { gradInput: dx } = oracle.trainBackward(batch, values, parameters);
        assertClose(
          await toArray(device, output),
          oracle.trainForward(batch, parameters),
          FLOAT32,
          "output",
        );
        assertClose(await toArray(device, gradInput), dx, FLOAT32, "gradInput");
      });
    }
  }
}
