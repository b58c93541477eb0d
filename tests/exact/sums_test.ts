/** exactSums and allReduceGradients({ exact: true }): totals without rounding, over any partition, and what they refuse. */

import assert from "node:assert/strict";
import * as bn from "../../mod.ts";
import { fractionOf, ratio } from "./rational.ts";
import { distanceInUlps } from "./rational.ts";
import { normals, uniforms } from "../random.ts";

Deno.test("exactSums rounds the sum of all terms once, whatever their order", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const [normal, uniform] = [normals(seed), uniforms(seed)];
    const reach = [1, 30, 120, 250][seed % 4];
    // Some terms cancel, all but their last bits.
    const half = Array.from(
      { length: 1 + seed % 20 },
      () => normal() * 2 ** (reach * (2 * uniform() - 1)),
    );
    const terms = seed % 3 === 0 ? [...half, ...half.map((term) => -term * (1 + 2 ** -40))] : half;
    const [forwards, backwards] = [terms, terms.toReversed()].map((all) => {
      const sums = bn.exactSums(2);
      for (const term of all) sums.add([term], 1);
      return sums.round();
    });
    assert.deepEqual(forwards, backwards);
    assert.equal(forwards[0], 0);
    const exact = terms.map(fractionOf).reduce((a, b) => a + b, 0n);
    assert(distanceInUlps(forwards[1], ratio(exact, 1n, 1)) <= 0.5, `seed ${seed}`);
  }
});

Deno.test("exactSums takes special terms as IEEE 754 has them", () => {
  const sums = bn.exactSums(4);
  sums.add([Infinity, Infinity, NaN, -0]);
  sums.add([1, -Infinity, 1, 5e-324]);
  assert.deepEqual([...sums.round()], [Infinity, NaN, NaN, 0]);
});

Deno.test("exactSums refuses what it cannot add, and adds nothing of it", () => {
  const sums = bn.exactSums(2);
  assert.throws(
    () => sums.add([1, 2 ** 288]),
    /term 1 must be below 2\^288 in size: current value is/,
  );
  assert.throws(() => sums.add([1, 2, 3]), /there are 2 of these: current values are 3 and 2/);
  assert.throws(() => sums.add([1], 2), /there are 2 of these/);
  assert.throws(
    () => sums.add(["1"] as unknown as number[]),
    /term 0 must be a number: current value is "1"/,
  );
  assert.throws(() => sums.add(null as unknown as number[]), /must be an array of numbers/);
  assert.throws(() => bn.exactSums(-1), RangeError);
  assert.deepEqual(sums.round(), new Float64Array(2));
});

Deno.test("allReduceGradients with exact: one total for any number of ranks and any partition", async () => {
  const device = bn.referenceDevice();
  const normal = normals(7);
  const rows = Array.from({ length: 24 }, () => Float32Array.from({ length: 3 }, normal));
  const seen = new Set<string>();
  for (const ranks of [1, 2, 3, 8]) {
    const totals = await bn.runRanks(ranks, async (group) => {
      const [weight, bias] = [bn.exactSums(3), bn.exactSums(1)];
      rows.forEach((row, i) => {
        if ((i * 7) % ranks !== group.rank) return;
        weight.add(row);
        bias.add(row.subarray(1, 2));
      });
      const tree = { layers: [{ weight, bias }, null] };
      const total = await bn.allReduceGradients(tree, { device, group }, {
        ...{ exact: true, average: false },
      });
      const [layer, none] = total.layers;
      assert.equal(none, null);
      return await Promise.all([layer!.weight, layer!.bias].map(device.download));
    });
    for (const total of totals) seen.add(String(total));
  }
  assert.equal(seen.size, 1);
});

Deno.test("allReduceGradients with exact refuses a mean over ranks, and arrays, on all ranks", async () => {
  const device = bn.referenceDevice();
  const sums = bn.exactSums(1);
  const array = device.upload(Float32Array.of(1));
  const calls: [unknown, bn.AllReduceGradientsOptions, RegExp][] = [
    [
      sums,
      {},
      /average must be false, as a mean over ranks depends on how many there are: .*current value is true/,
    ],
    [
      { a: array },
      { average: false },
      /a\.device must be what exactSums made|a must be what exactSums made/,
    ],
    [{ a: new Float32Array(1) }, { average: false }, /a must be what exactSums made, null, or/],
    [
      sums,
      { average: false, buckets: 2 },
      /options may be average, exact, signal: current one is "buckets"/,
    ],
  ];
  for (const [tree, options, text] of calls) {
    const told = { ...options, exact: true } as const;
    const alone = bn.runRanks(1, (group) => bn.allReduceGradients(tree, { device, group }, told));
    await assert.rejects(alone, text);
    await bn.runRanks(2, async (group) => {
      const mine = group.rank === 0 ? tree : sums;
      const own = group.rank === 0 ? told : { exact: true, average: false } as const;
      await assert.rejects(bn.allReduceGradients(mine, { device, group }, own), (error) => {
        assert(error instanceof bn.CollectiveError);
        assert.match(error.message, text);
        return true;
      });
    });
  }
});

Deno.test("allReduceGradients with exact: ranks of which one is not are told so, all of them", async () => {
  const device = bn.referenceDevice();
  await bn.runRanks(2, async (group) => {
    const call = group.rank === 0
      ? bn.allReduceGradients(bn.exactSums(1), { device, group }, { exact: true, average: false })
      : bn.allReduceGradients(device.upload(Float32Array.of(1)), { device, group });
    await assert.rejects(call, /disagree: .*exact.*(sum|mean) of|disagree: .*mean of.*exact/);
  });
});
