/** Weights of examples on a device: all forms of a call, statistics as values, evaluation, what is refused. */

import assert from "node:assert/strict";
import {
  allReduceMoments,
  batchMoments,
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  type BatchNormState,
  type BlockingGroup,
  type Device,
  initBatchNorm,
  mergeMoments,
  normalizeWith,
  type ProcessGroup,
  referenceDevice,
  runRanks,
  stateFromHost,
  stateToHost,
  syncBatchNormBackward,
  syncBatchNormBackwardAll,
  syncBatchNormBackwardBlocking,
  syncBatchNormForward,
  syncBatchNormForwardAll,
  syncBatchNormForwardBlocking,
  type Tensor,
  tensor,
  toArray,
  updateRunningStats,
  type WeightOptions,
} from "../../mod.ts";
import { weightedMomentsWire } from "../../lib/device_author.ts";
import { assertClose, type DeviceKit, EPSILON, testsOf, throwsLike } from "../kit.ts";
import { normalArray } from "../random.ts";

/** Registers the tests of weights for a device. */
export function weightSuite<A>(kit: DeviceKit<A>): void {
  const test = weightTestsOf(kit);
  const fine = kit.ulps * EPSILON.float32;
  const units = { absolute: 8 * fine, relative: 8 * fine };

  test("NaN and infinities that count spoil their channel alone", async (device) => {
    if (!kit.nonFinite) return;
    const weights = device.upload(Float32Array.of(1, 0.5, 0, 2));
    const state = initBatchNorm(device, 2);
    const run = async (special: number, at: number) => {
      const values = [[1, 5], [2, 7], [4, 1], [3, 2]];
      values[at][0] = special;
      const x = tensor(device, values.flat(), [4, 2]);
      const { output } = batchNormForward(state, x, { device }, { weights });
      const y = [...await toArray(device, output)];
      return [0, 1].map((c) => y.filter((_, i) => i % 2 === c));
    };
    const [, plain] = await run(1, 0);
    for (const special of [NaN, Infinity, -Infinity]) {
      const [own, other] = await run(special, 1);
      assert(own.every(Number.isNaN), `${special}: ${own}`);
      assert.deepEqual(other, plain);
      const [masked, beside] = await run(special, 2);
      assert.deepEqual(masked.map(Number.isFinite), [true, true, false, true]);
      assert.deepEqual(beside, plain);
    }
    const [huge] = await run(3e38, 1);
    assert.deepEqual(huge.map(Number.isFinite), [true, true, true, true]);
  });

  test("all forms of one call give the same bits: lengths or a mask, awaited, blocking, in branches", async (device) => {
    const [N, C, L] = [4, 3, 5];
    const lengths = Int32Array.of(5, 0, 2, 3);
    const mask = Float32Array.from(
      { length: N * L },
      (_, p) => +(p % L < lengths[Math.floor(p / L)]),
    );
    const [x, dy] = [normalArray(N * C * L, 3), normalArray(N * C * L, 4)];
    const state = initBatchNorm(device, C);
    const runs = (group: ProcessGroup) => {
      const totals: Float64Array[] = [];
      const allReduce: ProcessGroup["allReduce"] = async (...call) => {
        const total = await group.allReduce(...call);
        totals.push(total.slice());
        return total;
      };
      const effects = { device, group: { ...group, allReduce } };
      const half = N / 2 * group.rank;
      const put = (values: Float32Array) =>
        tensor(device, values.slice(half * C * L, (half + N / 2) * C * L), [N / 2, C, L]);
      const weights = tensor(device, mask.slice(half * L, (half + N / 2) * L), [N / 2, 1, L]);
      const [input, gradOutput] = [put(x), put(dy)];
      const own = { lengths: lengths.slice(half, half + N / 2) };
      type Step = readonly [Tensor<A>, BatchNormState<A>, Tensor<A>];
      const awaited = async (options: WeightOptions<A>): Promise<Step> => {
        const { output, state: next, saved } = await syncBatchNormForward(
          state,
          input,
          effects,
          options,
        );
        const { gradInput } = await syncBatchNormBackward(saved, gradOutput, effects);
        return [output, next, gradInput];
      };
      // Ranks of one thread cannot block; what they were told then is told again.
      const blocking = (): Step => {
        const allReduceBlocking: BlockingGroup["allReduceBlocking"] = (local) => {
          assert.deepEqual(typeof local === "function" && local().length, totals[0].length);
          return totals.shift()!;
        };
        const again = { device, group: { worldSize: 2, rank: group.rank, allReduceBlocking } };
        const forward = syncBatchNormForwardBlocking(state, input, again, { weights });
        const back = syncBatchNormBackwardBlocking(forward.saved, gradOutput, again);
        return [forward.output, forward.state, back.gradInput];
      };
      const branches = async (): Promise<Step> => {
        const plain = { state, input };
        const all = await syncBatchNormForwardAll([plain, { ...plain, options: own }], effects);
        const saveds = all.map(({ saved }) => ({ saved, gradOutput }));
        const [, { gradInput }] = await syncBatchNormBackwardAll(saveds, effects);
        return [all[1].output, all[1].state, gradInput];
      };
      return { awaited, blocking, branches, own, weights };
    };
    const bits = async ([y, next, dx]: readonly [Tensor<A>, BatchNormState<A>, Tensor<A>]) => [
      ...[await toArray(device, y), await toArray(device, dx)],
      ...[
        (await stateToHost(device, next)).runningMean,
        (await stateToHost(device, next)).runningVar,
      ],
    ];
    await runRanks(2, async (group) => {
      const { awaited, blocking, branches, own, weights } = runs(group);
      const wanted = await bits(await awaited(own));
      if (device.toWireNow) assert.deepEqual(await bits(blocking()), wanted);
      assert.deepEqual(await bits(await awaited({ weights })), wanted);
      assert.deepEqual(await bits(await branches()), wanted);
    });
  });

  test("nothing that counts leaves the state, and the output is the bias", async (device) => {
    const x = tensor(device, normalArray(12, 5), [2, 3, 2]);
    const state = stateFromHost(device, {
      ...await stateToHost(device, initBatchNorm(device, 3)),
      bias: Float32Array.of(1, 2, 3),
    });
    const none = { lengths: new Int32Array(2) };
    const zeros = { weights: device.upload(new Float32Array(2)) };
    const known = device.toWireNow ? [none, zeros] : [none];
    for (const options of known) {
      const local = batchNormForward(state, x, { device }, options);
      assert.equal(local.state, state);
      assert.deepEqual([...await toArray(device, local.output)], [
        1,
        1,
        2,
        2,
        3,
        3,
        1,
        1,
        2,
        2,
        3,
        3,
      ]);
      const { gradInput } = batchNormBackward(local.saved, x, { device });
      assert((await toArray(device, gradInput)).every((value) => value === 0));
    }
    // Where the host does not know, running statistics stay all the same.
    const blind = await stateToHost(device, batchNormForward(state, x, { device }, zeros).state);
    const before = await stateToHost(device, state);
    assert.deepEqual(blind.runningMean, before.runningMean);
    assert.deepEqual(blind.runningVar, before.runningVar);
    await runRanks(2, async (group) => {
      const forward = await syncBatchNormForward(state, x, { device, group }, zeros);
      assert.equal(forward.state, state);
      assert.deepEqual([forward.moments.count, forward.moments.positives], [0, 0]);
      const y = [...await toArray(device, forward.output)];
      assert.deepEqual(y, [1, 1, 2, 2, 3, 3, 1, 1, 2, 2, 3, 3]);
      const { gradInput } = await syncBatchNormBackward(forward.saved, x, { device, group });
      assert((await toArray(device, gradInput)).every((value) => value === 0));
    });
  });

  test("one weight alone has no variance, however large: an error on every rank", async (device) => {
    const state = initBatchNorm(device, 2);
    const x = tensor(device, [1, 2, 3, 4], [2, 2]);
    const one = device.upload(Float32Array.of(0, 5));
    const none = device.upload(new Float32Array(2));
    const rank = (group: ProcessGroup) =>
      syncBatchNormForward(state, x, { device, group }, { weights: group.rank === 1 ? one : none });
    await runRanks(3, async (group) => {
      await assert.rejects(rank(group), /more than 1 value per channel/);
    });
    if (device.toWireNow) {
      const local = () => batchNormForward(state, x, { device }, { weights: one });
      throwsLike(local, RangeError, /more than 1 value per channel/);
    }
    const sequence = tensor(device, [1, 2, 3, 4], [2, 1, 2]);
    const lengths = Int32Array.of(0, 1);
    throwsLike(
      () => batchNormForward(initBatchNorm(device, 1), sequence, { device }, { lengths }),
      RangeError,
      /more than 1 value per channel/,
    );
    await runRanks(2, async (group) => {
      const { moments } = await syncBatchNormForward(state, x, { device, group }, { weights: one });
      assert.deepEqual([moments.count, moments.positives], [10, 2]);
    });
  });

  test("the running variance is unbiased by W/(W - 1), and as it is where W is 1 or less", async (device) => {
    const values = [1, 2, 4, 9];
    const x = tensor(device, values, [4, 1]);
    for (const scale of [1, 0.125, 0.25]) {
      const w = [3, 1, 0, 2].map((value) => value * scale);
      const W = w.reduce((a, b) => a + b);
      const mean = values.reduce((sum, value, i) => sum + w[i] * value, 0) / W;
      const variance = values.reduce((sum, value, i) => sum + w[i] * (value - mean) ** 2, 0) / W;
      const weights = device.upload(Float32Array.from(w));
      for (const runningVariance of ["unbiased", "biased"] as const) {
        if (runningVariance === "biased" && !device.toWireNow) continue;
        const state = initBatchNorm(device, 1, { momentum: 1, runningVariance });
        const { state: next } = batchNormForward(state, x, { device }, { weights });
        const is = await stateToHost(device, next);
        const unbiased = runningVariance === "unbiased" && W > 1
          ? variance * W / (W - 1)
          : variance;
        assertClose(is.runningMean!, [mean], units, "mean");
        assertClose(is.runningVar!, [unbiased], units, `${runningVariance} variance, W = ${W}`);
      }
    }
  });

  test("weighted moments merge on the device and over ranks, and normalize", async (device) => {
    const [x, w] = [normalArray(24, 7, 3, 2), Float32Array.of(1, 0, 2, 0.5, 0, 3)];
    const put = (from: number, to: number) =>
      tensor(device, x.slice(from * 4, to * 4), [to - from, 4]);
    const weigh = (from: number, to: number) => ({ weights: device.upload(w.slice(from, to)) });
    const whole = batchMoments(put(0, 6), { device }, weigh(0, 6));
    const wanted = await device.toWire(whole.data);
    assert.equal(wanted.length, weightedMomentsWire.length(4));
    assertClose([wanted[1]], [6.5], units, "W");
    const merged = [[0, 1], [1, 2], [2, 6]]
      .map(([from, to]) => batchMoments(put(from, to), { device }, weigh(from, to)))
      .reduce((a, b) => mergeMoments(a, b, { device }));
    const slack = { absolute: 60 * fine, relative: 8 * fine };
    assertClose((await device.toWire(merged.data)).slice(1), wanted.slice(1), slack, "merged");
    const state = initBatchNorm(device, 4);
    await runRanks(3, async (group) => {
      const [from, to] = [[0, 2], [2, 2], [2, 6]][group.rank];
      const own = batchMoments(put(from, to), { device }, weigh(from, to));
      const total = await allReduceMoments(own, { device, group });
      assertClose((await device.toWire(total.data)).slice(1), wanted.slice(1), slack, "reduced");
      const forward = await syncBatchNormForward(
        state,
        put(from, to),
        { device, group },
        weigh(from, to),
      );
      const { output } = normalizeWith(state, put(from, to), total, { device }, weigh(from, to));
      assert.deepEqual(await toArray(device, output), await toArray(device, forward.output));
      const next = await stateToHost(device, updateRunningStats(state, total, { device }));
      assert.deepEqual(next, await stateToHost(device, forward.state));
    });
    const plain = batchMoments(put(0, 6), { device });
    throwsLike(() => mergeMoments(plain, whole, { device }), TypeError, /count by weight, or none/);
    throwsLike(() => normalizeWith(state, put(0, 6), whole, { device }), TypeError, /need weights/);
    throwsLike(
      () => normalizeWith(state, put(0, 6), plain, { device }, weigh(0, 6)),
      TypeError,
      /need no weights/,
    );
  });

  test("evaluation counts by weight where the state tracks nothing, and else not at all", async (device) => {
    const [x, dy] = [normalArray(8, 8, 1, 2), normalArray(8, 9)].map((values) =>
      tensor(device, values, [4, 2])
    );
    const weights = device.upload(Float32Array.of(1, 0, 2, 0.5));
    const untracked = initBatchNorm(device, 2, { trackRunningStats: false });
    const train = batchNormForward(untracked, x, { device }, { weights });
    const y = batchNormInfer(untracked, x, { device }, { weights });
    assert.deepEqual(await toArray(device, y), await toArray(device, train.output));
    const back = batchNormInferBackward(untracked, x, dy, { device }, { weights });
    const wanted = batchNormBackward(train.saved, dy, { device });
    assert.deepEqual(
      await toArray(device, back.gradInput),
      await toArray(device, wanted.gradInput),
    );
    const tracked = initBatchNorm(device, 2);
    const [one, two] = [{ weights }, {}].map((options) =>
      batchNormInferBackward(tracked, x, dy, { device }, options)
    );
    assert.deepEqual(await toArray(device, one.gradInput), await toArray(device, two.gradInput));
    throwsLike(
      () => batchNormInfer(tracked, x, { device }, { weights: device.upload(new Float32Array(3)) }),
      TypeError,
      /weights/,
    );
  });

  test("weights that cannot be are an error on all ranks, and the state is kept", async (device) => {
    const state = initBatchNorm(device, 2);
    const before = await stateToHost(device, state);
    const x = tensor(device, normalArray(24, 10), [3, 2, 4]);
    const good = device.upload(Float32Array.of(1, 0, 2));
    const freed = device.upload(new Float32Array(3));
    device.free(freed);
    const of = (shape: readonly number[]) =>
      tensor(device, new Float32Array(shape.reduce((a, b) => a * b)).fill(1), shape);
    const late = [[1, -1, 2], [1, NaN, 2], [1, Infinity, 2]].map((values) =>
      device.upload(Float32Array.from(values))
    );
    const cases: (readonly [unknown, RegExp])[] = [
      ...late.map((weights) => [{ weights }, /weights must be finite and >= 0/] as const),
      [{ weights: of([3, 2, 4]) }, /weights must be of shape \(3\) or \(3, 1, 4\)/],
      [{ weights: of([2, 1]) }, /weights must be of shape/],
      [{ weights: of([3, 4]) }, /weights must be of shape/],
      [{ weights: of([4, 1, 3]) }, /weights must be of shape/],
      [{ weights: device.upload(new Float32Array(4)) }, /weights/],
      [{ weights: freed }, /weights/],
      [{ weights: referenceDevice().upload(new Float32Array(3)) }, /weights/],
      [{ weights: [1, 0, 2] }, /weights must be a tensor.*device.upload/],
      [{ weights: null }, /weights must be a tensor: current value is null/],
      [{ weights: good, lengths: Int32Array.of(1, 2, 3) }, /weights or lengths/],
      [{ lengths: [1, 2, 3] }, /lengths must be an Int32Array/],
      [{ lengths: Int32Array.of(1, 2) }, /lengths must be N/],
      [{ lengths: Int32Array.of(1, 5, 2) }, /every length must be from 0 to 4: current value is 5/],
      [{ lengths: Int32Array.of(1, -1, 2) }, /every length must be from 0 to 4/],
    ];
    for (const [options, text] of cases) {
      const weights = options as WeightOptions<A>;
      const isLate = late.some((array) => array === weights.weights);
      if (!isLate || device.toWireNow) {
        assert.throws(() => batchNormForward(state, x, { device }, weights), text, `${text}`);
        assert.throws(() => batchMoments(x, { device }, weights), text);
      } else {
        const next = await stateToHost(
          device,
          batchNormForward(state, x, { device }, weights).state,
        );
        assert.deepEqual(next.runningMean, before.runningMean);
        assert.deepEqual(next.runningVar, before.runningVar);
      }
      await runRanks(2, async (group) => {
        const own = group.rank === 0 ? { weights: good } : weights;
        await assert.rejects(syncBatchNormForward(state, x, { device, group }, own), text);
        const { state: next } = await syncBatchNormForward(state, x, { device, group }, {
          weights: good,
        });
        assert.equal(next.numBatchesTracked, 1);
      });
    }
    await runRanks(3, async (group) => {
      const own = group.rank === 1 ? {} : { weights: good };
      await assert.rejects(syncBatchNormForward(state, x, { device, group }, own), {
        name: "CollectiveError",
      });
    });
    assert.deepEqual(await stateToHost(device, state), before);
  });

  test("weights that backward borrows must still be there", (device) => {
    const x = tensor(device, normalArray(8, 11), [4, 2]);
    const weights = device.upload(Float32Array.of(1, 0, 2, 1));
    const { saved } = batchNormForward(initBatchNorm(device, 2), x, { device }, { weights });
    const asGradient = tensor(device, new Float32Array(8), [4, 2]);
    batchNormBackward(saved, asGradient, { device }, { donate: true });
    device.free(weights);
    throwsLike(() => batchNormBackward(saved, x, { device }), TypeError, /weights/);
  });
}

/** Registers tests by weights, of a device that has them; any other must refuse them by their name. */
export function weightTestsOf<A>(kit: DeviceKit<A>): ReturnType<typeof testsOf<A>> {
  const test = testsOf(kit);
  return (name, body) =>
    test(name, (device) => device.info.passes.includes("weights") ? body(device) : refused(device));
}

/** A device without the pass refuses weights by their name. */
function refused<A>(device: Device<A>): void {
  const x = tensor(device, [1, 2], [2, 1]);
  const weights = device.upload(Float32Array.of(1, 2));
  throwsLike(
    () => batchNormForward(initBatchNorm(device, 1), x, { device }, { weights }),
    Error,
    /must honour weights in a pass/,
  );
}
