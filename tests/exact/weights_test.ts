/** Weights on exact devices: a weight counts as that many rows, to the last bit, and what is no whole weight is refused on all ranks. */

import assert from "node:assert/strict";
import * as bn from "../../mod.ts";
import { wasmDevice } from "../../kernels/wasm_device.ts";
import { normals, uniforms } from "../random.ts";
import { bitsOf } from "./step.ts";

const CHANNELS = 3;
/** Powers of two, by which a gradient is shared out to copies without rounding. */
const COUNTS = [0, 1, 1, 2, 4];

/** A row of a batch: as often as it counts, or once with its weight. */
interface Row {
  readonly x: readonly number[];
  readonly dy: readonly number[];
  readonly weight: number;
}

/** Trains on rows, and gives all that came of it; rows of weight 0 give nothing. */
async function trained<A>(device: bn.Device<A>, rows: readonly Row[], isWeighted: boolean) {
  return await bn.region(device, async (scope) => {
    const shape = [rows.length, CHANNELS];
    const [x, dy] = (["x", "dy"] as const).map((name) =>
      bn.tensor(scope, rows.flatMap((row) => row[name]), shape)
    );
    const weights = bn.tensor(scope, rows.map(({ weight }) => weight), [rows.length, 1]);
    const { output, state, saved } = bn.batchNormForward(
      bn.initBatchNorm(scope, CHANNELS),
      x,
      { device: scope },
      isWeighted ? { weights } : {},
    );
    const { gradInput, group } = bn.batchNormBackward(saved, dy, { device: scope });
    const moved = bn.batchNormJvp(saved, { input: x }, { device: scope });
    const [y, along, dx] = await Promise.all(
      [output, moved, gradInput].map((t) => bn.toArray(device, t)),
    );
    const vectors = [state.runningMean, state.runningVar, group!.gradWeight, group!.gradBias];
    return {
      rows: rows.map(({ weight }, i) => {
        const of = (all: Float32Array) => all.slice(i * CHANNELS, (i + 1) * CHANNELS);
        const shares = of(dx).map((value) => value / weight);
        return weight === 0 ? null : bitsOf([...of(y), ...of(along), ...shares]);
      }).filter((bits) => bits !== null),
      vectors: await Promise.all(vectors.map(async (v) => bitsOf(await device.download(v!)))),
    };
  });
}

Deno.test("exact: a weight counts as that many rows, and 0 as none, to the last bit", async () => {
  await using wasm = await wasmDevice({ exact: true });
  for (const device of [bn.referenceDevice({ exact: true }), wasm] as bn.Device<unknown>[]) {
    for (let seed = 1; seed <= 40; seed++) {
      const [normal, uniform] = [normals(seed), uniforms(seed)];
      const rows = Array.from({ length: 3 + seed }, (_, i): Row => {
        const weight = i < 2 ? 1 : COUNTS[Math.floor(uniform() * COUNTS.length)];
        const some = () => Array.from({ length: CHANNELS }, () => weight ? normal() : NaN);
        // Output is everywhere, but no gradient comes from where nothing counts.
        return { x: some(), dy: some().map((value) => value || 0), weight };
      });
      const copies = rows.flatMap(({ x, dy, weight }) =>
        Array.from({ length: weight }, () => ({ x, dy: dy.map((g) => g / weight), weight: 1 }))
      );
      const [weighted, repeated] = [
        await trained(device, rows, true),
        await trained(device, copies, false),
      ];
      assert.deepEqual(weighted.vectors, repeated.vectors, `${device.info.name}, seed ${seed}`);
      const each = rows.filter(({ weight }) => weight > 0);
      const once = each.flatMap(({ weight }, i) => Array(weight).fill(weighted.rows[i]));
      assert.deepEqual(once, repeated.rows, `${device.info.name}, seed ${seed}`);
    }
  }
});

Deno.test("exact: a weight that is no whole number to 2^24 is refused on all ranks, and the state kept", async () => {
  await using wasm = await wasmDevice({ exact: true });
  for (const device of [bn.referenceDevice({ exact: true }), wasm] as bn.Device<unknown>[]) {
    const state = bn.initBatchNorm(device, 1);
    const told = /weights of an exact device must be whole numbers from 0 to 2\^24/;
    const forward = (weight: number, group: bn.ProcessGroup) => {
      const x = bn.tensor(device, [1, 2, 3, 4], [4, 1]);
      const weights = bn.tensor(device, [1, 1, weight, 1], [4, 1]);
      return bn.syncBatchNormForward(state, x, { device, group }, { weights });
    };
    for (const wrong of [0.5, -1, NaN, Infinity, 2 ** 24 + 2]) {
      await bn.runRanks(1, (group) => assert.rejects(forward(wrong, group), RangeError));
      await bn.runRanks(3, async (group) => {
        const call = forward(group.rank === 1 ? wrong : 1, group);
        await assert.rejects(call, (error) => {
          assert(error instanceof bn.CollectiveError && error.cause instanceof RangeError);
          assert.match(error.message, told);
          return true;
        });
      });
    }
    const many = Array.from({ length: 257 }, () => 2 ** 24);
    const x = bn.tensor(device, many, [many.length, 1]);
    const weights = bn.tensor(device, many, [many.length, 1]);
    assert.throws(
      () => bn.batchNormForward(state, x, { device }, { weights }),
      /must be of 4294967295 values per channel at most: current sum of the weights is 4311744512/,
    );
    assert.equal((await bn.stateToHost(device, state)).numBatchesTracked, 0);
  }
});
