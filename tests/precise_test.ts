import assert from "node:assert/strict";
import fc from "fast-check";
import {
  type BatchNormLayer,
  initLayer,
  preciseStatistics,
  type ReferenceArray,
  referenceDevice,
  runRanks,
  tensor,
  toArray,
} from "../mod.ts";
import * as oracle from "./oracle.ts";
import { assertClose, EPSILON } from "./kit.ts";
import { normalArray } from "./random.ts";
import { census } from "./recording.ts";

const device = referenceDevice();
type Model = {
  readonly deep: BatchNormLayer<ReferenceArray>;
  readonly stem: BatchNormLayer<ReferenceArray>;
};
/** In the tree the deep layer comes first, in forward last. */
const model: Model = {
  deep: initLayer(device, "batchNorm1d", 2, { momentum: 0.3 }),
  stem: initLayer(device, "batchNorm1d", 2, { activation: "relu" }),
};
const forward = async (
  { stem, deep }: Model,
  values: readonly number[],
  { device, norm }: Parameters<
    Parameters<typeof preciseStatistics<ReferenceArray, Model, readonly number[]>>[2]
  >[2],
) => {
  const x = tensor(device, values, [values.length / 2, 2]);
  const hidden = norm(stem, x);
  const [...read] = await toArray(device, hidden);
  norm(deep, tensor(device, read.map((v) => 3 * v + 1), hidden.shape));
};

const numbers = async ({ stem, deep }: Model) =>
  (await Promise.all(
    [stem, deep].flatMap(({ state }) =>
      [state.runningMean!, state.runningVar!].map((array) => device.download(array))
    ),
  )).flatMap((v) => [...v]);

Deno.test("preciseStatistics() is the same for any split over batches and ranks, and that of all the data at once", async () => {
  const values = [...normalArray(24, 7)];
  // By the oracle: statistics of the stem, its outputs with them, statistics of the deep layer.
  const unbiased = (v: readonly number[]) => {
    const { mean, variance, count } = oracle.statistics({ values: v, channels: 2, inner: 1 });
    return { mean, variance: [...variance].map((x) => x * count / (count - 1)) };
  };
  const stem = unbiased(values);
  const hidden = values.map((v, i) =>
    3 * Math.max(0, (v - stem.mean[i % 2]) / Math.sqrt(stem.variance[i % 2] + 1e-5)) + 1
  );
  const deep = unbiased(hidden);
  const wanted = [stem, deep].flatMap(({ mean, variance }) => [...mean, ...variance]);
  const close = { absolute: 8 * EPSILON.float32, relative: 8 * EPSILON.float32 };
  const cuts = fc.array(fc.array(fc.integer({ min: 0, max: 12 }), { maxLength: 3 }), {
    ...{ minLength: 1, maxLength: 3 },
  });
  await fc.assert(
    fc.asyncProperty(cuts, async (lengths) => {
      // The last rank takes what is left.
      let at = 0;
      const take = (count: number) => values.slice(at, at += 2 * Math.min(count, 12 - at / 2));
      const batches = lengths.map((list) => list.map(take));
      batches.at(-1)!.push(take(12));
      const results = await runRanks(batches.length, async (group) => {
        const own = batches[group.rank];
        return await preciseStatistics(model, own, forward, { device, group });
      });
      for (const result of results) {
        assertClose(await numbers(result), wanted, close, "statistics");
        assert.deepEqual(await numbers(result), await numbers(results[0]));
        assert.equal(result.deep.state.momentum, 0.3);
        assert.equal(result.deep.state.weight, model.deep.state.weight);
      }
    }),
    { numRuns: 25, seed: 25 },
  );
});

Deno.test("preciseStatistics() of no data at all leaves the model as it is, and takes the layers that are meant", async () => {
  const result = await preciseStatistics(model, [], forward, { device });
  assert.deepEqual(result, model);
  const only = (path: string) => path === "stem";
  const values = [1, 2, 3, 4, 7, 7];
  const stem = await preciseStatistics(model, () => [values], forward, { device }, { only });
  assert.equal(stem.deep, model.deep);
  assert.notEqual(stem.stem.state.runningMean, model.stem.state.runningMean);
});

Deno.test("preciseStatistics() tells all ranks of one that fails, and refuses a stranger's layer", async () => {
  await assert.rejects(
    runRanks(2, (group) =>
      preciseStatistics(model, [[1, 2, 3, 4]], () => {
        if (group.rank === 1) throw new Error("no such file");
      }, { device, group })),
    /[Rr]ank 1.*no such file/,
  );
  const stranger = initLayer(device, "batchNorm1d", 2);
  await assert.rejects(
    preciseStatistics(model, [1], (_, __, { norm }) => {
      norm(stranger, tensor(device, [1, 2], [1, 2]));
    }, { device }),
    /norm must be given a layer of the model/,
  );
  await assert.rejects(
    preciseStatistics(model, [[1, 2]], forward, { device }),
    RangeError,
  );
});

Deno.test("preciseStatistics() leaves nothing behind but the new statistics, and nothing where a later batch fails", async () => {
  const { device: counted, alive } = census(device);
  const batches = [[1, 2, 3, 4], [5, 6, 8, 7], [2, 2, 9, 1]];
  await preciseStatistics(model, batches, forward, { device: counted });
  assert.equal(alive(), 4);
  const failing = (...[model, batch, run]: Parameters<typeof forward>) => {
    if (batch === batches[2]) throw new Error("no such file");
    return forward(model, batch, run);
  };
  await assert.rejects(preciseStatistics(model, batches, failing, { device: counted }), /no such/);
  assert.equal(alive(), 4);
});
