/** Weights of examples where a batch is normalized in parts, in groups, or corrected: the law, all forms, what is refused. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  applyLayer,
  applyLayerParts,
  backwardLayer,
  backwardLayerParts,
  batchNormBackwardGhost,
  batchNormForwardGhost,
  type BlockingGroup,
  type Device,
  initBatchNorm,
  initLayer,
  type ProcessGroup,
  referenceDevice,
  runRanks,
  stateToHost,
  syncBatchNormBackwardParts,
  syncBatchNormBackwardPartsBlocking,
  syncBatchNormForwardGhost,
  syncBatchNormForwardGhostBlocking,
  syncBatchNormForwardParts,
  syncBatchNormForwardPartsBlocking,
  syncBatchRenormBackward,
  syncBatchRenormBackwardBlocking,
  syncBatchRenormForward,
  syncBatchRenormForwardBlocking,
  tensor,
  toArray,
  type WeightOptions,
} from "../../mod.ts";
import { assertClose, type DeviceKit, EPSILON, throwsLike } from "../kit.ts";
import { normalArray } from "../random.ts";
import { census } from "../recording.ts";
import {
  affineOf,
  type WeightedData,
  weightedData,
  weightedOracle,
  type WeightedScenario,
  weightedScenarios,
} from "../weighted.ts";
import {
  checkWeights,
  type Results,
  resultsOf,
  type Wanted,
  type Way,
} from "../weighted_training.ts";
import { compiles } from "./second_order.ts";
import { weightTestsOf } from "./weights.ts";

/** The samples of a rank in up to three parts, the second of which is empty. */
const inParts: Way = async ({ state, effects, samples, cut, activation }) => {
  const half = samples >> 1;
  const cuts = [cut(0, half), cut(half, half), cut(half, samples)];
  const [{ residual, weighing }] = cuts;
  const options = {
    ...activation,
    ...(residual && { residuals: cuts.map(({ residual }) => residual!) }),
    ...(weighing.lengths
      ? { lengths: cuts.map(({ weighing }) => weighing.lengths!) }
      : { weights: cuts.map(({ weighing }) => weighing.weights!) }),
  };
  const inputs = cuts.map(({ input }) => input);
  const forward = await syncBatchNormForwardParts(state, inputs, effects, options);
  const gradOutputs = cuts.map(({ gradOutput }) => gradOutput);
  const back = await syncBatchNormBackwardParts(forward.saved, gradOutputs, effects);
  return { ...forward, ...back, state: forward.state, gradResiduals: back.gradResiduals ?? [] };
};

const inGroups = (ghost: number): Way => async ({ state, effects, samples, cut, activation }) => {
  const { input, gradOutput, residual, weighing } = cut(0, samples);
  const options = { ghost, ...weighing, ...activation, ...(residual && { residual }) };
  const forward = await syncBatchNormForwardGhost(state, input, effects, options);
  return resultsOf(forward, batchNormBackwardGhost(forward.saved, gradOutput, effects));
};

const BOUNDS = { rmax: 1.5, dmax: 0.75 } as const;

const corrected: Way = async ({ state, effects, samples, cut }) => {
  const { input, gradOutput, weighing } = cut(0, samples);
  const forward = await syncBatchRenormForward(state, input, effects, { ...BOUNDS, ...weighing });
  return resultsOf(forward, await syncBatchRenormBackward(forward.saved, gradOutput, effects));
};

/** What each group of a rank gives by itself. */
function groupsWanted(scenario: WeightedScenario, data: WeightedData, ghost: number): Wanted {
  const { channels: C, inner, counts } = scenario;
  let first = 0;
  const groups = counts.flatMap((count) => {
    const from = first;
    first += count;
    const starts = Array.from({ length: Math.ceil(count / ghost) }, (_, i) => from + i * ghost);
    return starts.map((start) => {
      const end = Math.min(start + ghost, first);
      const cut = (values: Float32Array, each: number) => values.slice(start * each, end * each);
      const [x, dy, residual] = [data.x, data.dy, data.residual].map((v) => cut(v, C * inner));
      const own = { x, dy, residual, weights: cut(data.weights, inner), lengths: data.lengths };
      return weightedOracle(scenario, own);
    });
  });
  const zeros = new Float64Array(C);
  const sums = (of: (group: typeof groups[number]) => Float64Array<ArrayBuffer>) =>
    groups.map(of).reduce((a, b) => a.map((value, c) => value + b[c]), zeros);
  const W = groups.reduce((sum, group) => sum + group.W, 0);
  const shares = (of: (group: typeof groups[number], c: number) => number) =>
    zeros.map((_, c) =>
      groups.reduce((sum, group) => group.W > 0 ? sum + group.W / W * of(group, c) : sum, 0)
    );
  const observed = {
    mean: shares(({ mean }, c) => mean[c]),
    variance: shares(({ W, variance }, c) => variance[c] * (W > 1 ? W / (W - 1) : 1)),
  };
  return {
    y: groups.flatMap(({ y }) => y),
    dx: groups.flatMap(({ dx }) => dx),
    dresidual: groups.flatMap(({ dresidual }) => dresidual),
    dweight: sums(({ dweight }) => dweight),
    dbias: sums(({ dbias }) => dbias),
    positives: groups.some(({ positives }) => positives === 1) ? 1 : 2,
    observed: W > 0 ? observed : null,
    terms: {
      y: groups.flatMap(({ terms }) => terms.y),
      dx: groups.flatMap(({ terms }) => terms.dx),
      dweight: sums(({ terms }) => terms.dweight),
      dbias: sums(({ terms }) => terms.dbias),
    },
  };
}

/** What a correction towards a running mean of 0 and variance of 1 gives. */
function correctedWanted(scenario: WeightedScenario, data: WeightedData): Wanted {
  const { channels: C, inner, eps } = scenario;
  const bare = { ...scenario, affine: false };
  const plain = weightedOracle(bare, data);
  const { mean, variance, positives, W } = plain;
  const clip = (value: number, least: number, most: number) =>
    Math.max(least, Math.min(most, value));
  const sigma = Math.sqrt(1 + eps);
  const some = positives > 0;
  const r = variance.map((v) =>
    some ? clip(Math.sqrt(v + eps) / sigma, 1 / BOUNDS.rmax, BOUNDS.rmax) : 1
  );
  const d = mean.map((m) => some ? clip(m / sigma, -BOUNDS.dmax, BOUNDS.dmax) : 0);
  const channelOf = (i: number) => Math.floor(i / inner) % C;
  const { weight, bias } = affineOf(scenario) ?? {};
  const w = (c: number) => weight?.[c] ?? 1;
  const scaled = <T extends readonly number[]>(values: T) =>
    values.map((value, i) => value * w(channelOf(i)) * r[channelOf(i)]);
  return {
    y: plain.y.map((value, i) => {
      const c = channelOf(i);
      return (value * r[c] + d[c]) * w(c) + (bias?.[c] ?? 0);
    }),
    dx: scaled(plain.dx),
    dresidual: plain.dresidual,
    dweight: plain.dweight.map((value, c) => value * r[c] + plain.dbias[c] * d[c]),
    dbias: plain.dbias,
    positives,
    observed: some ? { mean, variance: variance.map((v) => v * (W > 1 ? W / (W - 1) : 1)) } : null,
    terms: {
      y: plain.terms.y.map((term, i) => 2 * term * w(channelOf(i)) + 2),
      dx: scaled(plain.terms.dx),
      dweight: plain.terms.dweight.map((term, c) => 2 * term + plain.terms.dbias[c]),
      dbias: plain.terms.dbias,
    },
  };
}

/** Registers the tests for a device. */
export function weightWaySuite<A>(kit: DeviceKit<A>): void {
  const test = weightTestsOf(kit);
  const few = compiles(kit);
  const numRuns = few ? 6 : 16;
  const scenarios = (device: Device<A>) =>
    weightedScenarios(device.info.float16, few ? 2 : kit.ways && Math.ceil(kit.ways / 2));

  test("by weights a batch in parts on k ranks is the whole of the formulas", async (device) => {
    const property = fc.asyncProperty(
      scenarios(device),
      (scenario) => checkWeights(kit, device, scenario, { way: inParts }),
    );
    await fc.assert(property, { numRuns, seed: 27 });
  });

  test("by weights each group is a batch of the formulas, and running statistics are their means by W", async (device) => {
    const property = fc.asyncProperty(
      scenarios(device),
      fc.integer({ min: 1, max: 3 }),
      async (scenario, ghost) => {
        const data = weightedData(scenario);
        const wanted = groupsWanted(scenario, data, ghost);
        await checkWeights(kit, device, scenario, {
          ...{ data, wanted, way: inGroups(ghost), reads: true },
        });
      },
    );
    await fc.assert(property, { numRuns, seed: 28 });
  });

  test("by weights renormalization on k ranks is that of the formulas", async (device) => {
    const property = fc.asyncProperty(scenarios(device), async (drawn) => {
      const scenario = { ...drawn, relu: false, residual: false };
      const data = weightedData(scenario);
      const wanted = correctedWanted(scenario, data);
      await checkWeights(kit, device, scenario, { data, wanted, way: corrected, reads: true });
    });
    await fc.assert(property, { numRuns, seed: 29 });
  });

  const [N, C, L] = [4, 2, 3];
  const lengths = Int32Array.of(3, 0, 2, 2);
  const mask = Float32Array.from({ length: N * L }, (_, p) => +(p % L < lengths[p / L | 0]));
  const put = (device: Device<A>, seed: number, samples = N) =>
    tensor(device, normalArray(samples * C * L, seed, 1, 2), [samples, C, L]);

  test("by weights all forms have the same bits: lengths or a mask, blocking, in layers", async (device) => {
    const state = initBatchNorm(device, C);
    const [x, dy] = [put(device, 1), put(device, 2)];
    const weights = tensor(device, mask, [N, 1, L]);
    const both: readonly WeightOptions<A>[] = [{ weights }, { lengths }];
    const bits = async (results: Results<A>) => {
      const { runningMean, runningVar } = await stateToHost(device, results.state);
      const [y, dx] = [results.outputs[0], results.gradInputs[0]];
      return [await toArray(device, y), await toArray(device, dx), runningMean, runningVar];
    };
    await runRanks(2, async (group) => {
      // Ranks of one thread cannot block; what they were told is told again.
      const totals: Float64Array[] = [];
      const allReduce: ProcessGroup["allReduce"] = async (...call) => {
        const total = await group.allReduce(...call);
        totals.push(total.slice());
        return total;
      };
      const allReduceBlocking: BlockingGroup["allReduceBlocking"] = (local) => {
        assert.equal(typeof local === "function" && local().length, totals[0].length);
        return totals.shift()!;
      };
      const effects = { device, group: { ...group, allReduce } };
      const again = { device, group: { worldSize: 2, rank: group.rank, allReduceBlocking } };
      const layered = { device, groups: { world: group } };
      const layer = (options: object) => ({
        ...initLayer(device, "batchNorm", C, { processGroup: "world", ...options }),
        state,
      });
      const ways = {
        parts: {
          awaited: async ({ weights, lengths }: WeightOptions<A>): Promise<Results<A>> => {
            const lists = weights ? { weights: [weights] } : { lengths: [lengths!] };
            const forward = await syncBatchNormForwardParts(state, [x], effects, lists);
            const back = await syncBatchNormBackwardParts(forward.saved, [dy], effects);
            return { ...forward, ...back, state: forward.state, gradResiduals: [] };
          },
          blocking: (): Results<A> => {
            const all = { weights: [weights] };
            const forward = syncBatchNormForwardPartsBlocking(state, [x], again, all);
            const back = syncBatchNormBackwardPartsBlocking(forward.saved, [dy], again);
            return { ...forward, ...back, state: forward.state, gradResiduals: [] };
          },
          inLayer: async (): Promise<Results<A>> => {
            const all = { lengths: [lengths] };
            const forward = await applyLayerParts(layer({}), [x], layered, all);
            const back = await backwardLayerParts(forward.saved, [dy], layered);
            return { ...forward, ...back, state: forward.layer.state, gradResiduals: [] };
          },
        },
        ghost: {
          awaited: async (own: WeightOptions<A>) => {
            const options = { ghost: 3, ...own };
            const forward = await syncBatchNormForwardGhost(state, x, effects, options);
            return resultsOf(forward, batchNormBackwardGhost(forward.saved, dy, { device }));
          },
          blocking: () => {
            const options = { ghost: 3, weights };
            const forward = syncBatchNormForwardGhostBlocking(state, x, again, options);
            return resultsOf(forward, batchNormBackwardGhost(forward.saved, dy, { device }));
          },
          inLayer: async () => {
            const forward = await applyLayer(layer({ ghost: 3 }), x, layered, { lengths });
            const back = await backwardLayer(forward.saved, dy, layered);
            return resultsOf({ ...forward, state: forward.layer.state }, back);
          },
        },
        renorm: {
          awaited: async (own: WeightOptions<A>) => {
            const options = { ...BOUNDS, ...own };
            const forward = await syncBatchRenormForward(state, x, effects, options);
            return resultsOf(forward, await syncBatchRenormBackward(forward.saved, dy, effects));
          },
          blocking: () => {
            const options = { ...BOUNDS, weights };
            const forward = syncBatchRenormForwardBlocking(state, x, again, options);
            return resultsOf(forward, syncBatchRenormBackwardBlocking(forward.saved, dy, again));
          },
          inLayer: async () => {
            const forward = await applyLayer(layer({ renorm: BOUNDS }), x, layered, { lengths });
            const back = await backwardLayer(forward.saved, dy, layered);
            return resultsOf({ ...forward, state: forward.layer.state }, back);
          },
        },
      };
      for (const [name, { awaited, blocking, inLayer }] of Object.entries(ways)) {
        const wanted = await bits(await awaited(both[0]));
        if (device.toWireNow) assert.deepEqual(await bits(blocking()), wanted, name);
        assert.deepEqual(await bits(await awaited(both[1])), wanted, name);
        assert.deepEqual(await bits(await inLayer()), wanted, `${name} in a layer`);
        totals.length = 0;
      }
    });
  });

  test("by weights groups leave nothing behind, and in a layer are the same", async (device) => {
    const state = initBatchNorm(device, C);
    const [x, dy] = [put(device, 3), put(device, 4)];
    const { device: counted, alive } = census(device);
    const known = batchNormForwardGhost(state, x, { device: counted }, { ghost: 2, lengths });
    assert.equal(alive(), 5, "output, two moments, running statistics");
    batchNormBackwardGhost(known.saved, dy, { device: counted });
    assert.equal(alive(), 5 + 3);
    const weights = tensor(device, mask, [N, 1, L]);
    const { saved } = batchNormForwardGhost(state, x, { device: counted }, { ghost: 2, weights });
    assert.equal(alive(), 5 + 3 + 5);
    assert.throws(
      () => batchNormBackwardGhost(saved, weights as never, { device }, { donate: true }),
      /gradOutput/,
    );
    const update = { ghost: 2, weights, updateRunningStats: false };
    assert.equal(batchNormForwardGhost(state, x, { device }, update).state, state);
    const layer = { ...initLayer(device, "batchNorm", C, { ghost: 2 }), state };
    const layered = await applyLayer(layer, x, { device }, { weights });
    const [is, wanted] = await Promise.all(
      [layered.layer.state, known.state].map((state) => stateToHost(device, state)),
    );
    assert.equal(is.numBatchesTracked, 1);
    for (let c = 0; c < C; c++) {
      assert(Math.abs(is.runningVar![c] - wanted.runningVar![c]) < 1e-5 * wanted.runningVar![c]);
    }
  });

  test("by weights running statistics of groups are those of counts that the host knows", async (device) => {
    const reference = referenceDevice();
    const [count, close] = [5, 16 * kit.ulps * EPSILON.float32];
    const places = Float32Array.from({ length: count * L }, (_, p) => p % 3 === 0 ? 0 : 0.5 * p);
    places.fill(0, 2 * L, 4 * L); // Nothing counts in the second of three groups.
    const examples = Float32Array.of(0.25, 0.5, 0, 0, 3);
    const x = normalArray(count * C * L, 6, 1, 2);
    const next = async <B>(
      device: Device<B>,
      values: Float32Array,
      momentum: number | null = 0.3,
    ) => {
      const whole = values.length > count;
      const weights = tensor(device, values, whole ? [count, 1, L] : [count, 1]);
      const input = tensor(device, x, [count, C, L]);
      const state = initBatchNorm(device, C, { momentum });
      const after = batchNormForwardGhost(state, input, { device }, { ghost: 2, weights });
      return await stateToHost(device, after.state);
    };
    for (const [weights, momentum] of [[places, 0.3], [examples, null]] as const) {
      const [is, wanted] = [
        await next(device, weights, momentum),
        await next(reference, weights, momentum),
      ];
      const units = { absolute: close, relative: close };
      assertClose(is.runningMean!, wanted.runningMean!, units, "running mean");
      assertClose(is.runningVar!, wanted.runningVar!, units, "running variance");
      assert.equal(is.numBatchesTracked, 1);
    }
    const none = await next(device, new Float32Array(count));
    assert.deepEqual([none.runningMean, none.runningVar], [
      new Float32Array(C),
      new Float32Array(C).fill(1),
    ]);
    for (const bad of [-0.125, NaN, Infinity]) {
      const wrong = Float32Array.of(0.25, 0.5, bad, 1, 3);
      if (device.toWireNow) {
        await assert.rejects(next(device, wrong), /weights must be finite and >= 0/);
        continue;
      }
      // As alone everywhere, where the host cannot tell: nothing follows.
      const { runningMean, runningVar } = await next(device, wrong);
      assert.deepEqual([runningMean, runningVar], [none.runningMean, none.runningVar], `${bad}`);
    }
    if (device.toWireNow) return;
    const biased = initBatchNorm(device, C, { runningVariance: "biased" });
    const weights = device.upload(Float32Array.of(1, 2, 0, 1));
    const call = () =>
      batchNormForwardGhost(biased, put(device, 7), { device }, { ghost: 2, weights });
    throwsLike(call, TypeError, /biased running variance needs counts: use lengths, or a group/);
  });

  test("weights of parts, groups and corrections that cannot be are an error on all ranks, and the state is kept", async (device) => {
    const state = initBatchNorm(device, C);
    const before = await stateToHost(device, state);
    const x = put(device, 5);
    const good = device.upload(Float32Array.of(1, 0, 2, 1));
    const cases: (readonly [WeightOptions<A>, RegExp])[] = [
      ...[-1, NaN, Infinity].map((value) =>
        [
          { weights: device.upload(Float32Array.of(1, value, 2, 1)) },
          /weights must be finite and >= 0/,
        ] as const
      ),
      [{ weights: tensor(device, new Float32Array(N * L), [N, L]) }, /weights must be of shape/],
      [
        { weights: referenceDevice().upload(new Float32Array(N)) as unknown as A },
        /weights/,
      ],
      [{ weights: good, lengths }, /weights or lengths/],
      [{}, /./],
    ];
    const ways: readonly ((group: ProcessGroup, own: WeightOptions<A>) => Promise<unknown>)[] = [
      (group, { weights, lengths }) =>
        syncBatchNormForwardParts(state, [x], { device, group }, {
          ...(weights !== undefined && { weights: [weights] }),
          ...(lengths !== undefined && { lengths: [lengths] }),
        }),
      (group, own) => syncBatchNormForwardGhost(state, x, { device, group }, { ghost: 4, ...own }),
      (group, own) => syncBatchRenormForward(state, x, { device, group }, { ...BOUNDS, ...own }),
    ];
    for (const way of ways) {
      await runRanks(2, async (group) => {
        for (const [wrong, text] of cases) {
          const own = group.rank === 0 ? { weights: good } : wrong;
          await assert.rejects(way(group, own), (error: Error) => {
            assert.equal(error.name, "CollectiveError");
            assert.match(error.message, text);
            return true;
          });
        }
        await way(group, { weights: good });
      });
    }
    // A rank alone that reads back finds them too.
    for (const way of device.toWireNow ? ways : ways.slice(1)) {
      await runRanks(1, (group) => assert.rejects(way(group, cases[0][0]), cases[0][1]));
    }
    await assert.rejects(
      runRanks(2, (group) => {
        const lists = { weights: group.rank === 0 ? [good] : [good, good] };
        return syncBatchNormForwardParts(state, [x], { device, group }, lists);
      }),
      /weights for each part: current values are 2 and 1/,
    );
    assert.deepEqual(await stateToHost(device, state), before);
  });
}
