/** Second order by weights, as laws without formulas: masking is removing, a weight of 2 is the row twice, none is no batch. */

import assert from "node:assert/strict";
import {
  batchNormBackward,
  batchNormBackwardBackward,
  batchNormBackwardMoments,
  batchNormForward,
  batchNormInferBackwardBackward,
  batchNormInferJvp,
  batchNormJvp,
  type Device,
  type Format,
  initBatchNorm,
  region,
  runRanks,
  syncBatchNormBackwardBackward,
  syncBatchNormForward,
  syncBatchNormJvp,
  type Tensor,
  tensor,
  toArray,
  type WeightOptions,
} from "../../mod.ts";
import { assertClose, type DeviceKit, EPSILON } from "../kit.ts";
import { permute } from "../oracle.ts";
import { normalArray } from "../random.ts";
import { compiles } from "./second_order.ts";
import { weightTestsOf } from "./weights.ts";

/** Numbers of (N, C, L), channels first. */
interface Batch {
  readonly x: Float32Array;
  readonly dy: Float32Array;
  /** A direction of the input, and the gradient by gradInput. */
  readonly along: Float32Array;
  readonly a: Float32Array;
}

/** Registers the laws for a device. */
export function secondOrderWeightSuite<A>(kit: DeviceKit<A>): void {
  // Where a quick run pays for every kernel, differences tell of weights.
  if (compiles(kit)) return;
  const test = weightTestsOf(kit);
  const units = 64 * kit.ulps * EPSILON.float32;
  // A shape and a memory order are kernels of their own, where kernels are compiled.
  const few = kit.ways !== undefined;
  const close = { absolute: units, relative: units };

  test("second order of a masked batch is that of the packed one, whatever is masked", async (device) => {
    const formats: readonly Format[] = few ? ["channelsLast"] : ["channelsFirst", "channelsLast"];
    for (const format of formats) {
      for (const [N, C, L] of few ? [[3, 4, 5]] : [[3, 4, 5], [9, 3, 2], [2, 2, 33]]) {
        const places = [...Array(N * L).keys()];
        const mask = Float32Array.from(places, (p) => p % 3 === 1 ? 0 : 1);
        const at = (p: number, c: number) => (Math.floor(p / L) * C + c) * L + p % L;
        const batch = drawn(N * C * L);
        for (const p of places.filter((p) => mask[p] === 0)) {
          for (let c = 0; c < C; c++) {
            if (kit.nonFinite) batch.x[at(p, c)] = [NaN, Infinity, 1e30][p % 3];
            for (const other of [batch.dy, batch.along, batch.a]) other[at(p, c)] = 0;
          }
        }
        const kept = places.filter((p) => mask[p] === 1);
        const order = kept.flatMap((p) => Array.from({ length: C }, (_, c) => at(p, c)));
        const pick = (values: ArrayLike<number>) => Float32Array.from(order, (i) => values[i]);
        const packed: Batch = {
          ...{ x: pick(batch.x), dy: pick(batch.dy), along: pick(batch.along), a: pick(batch.a) },
        };
        const weights = tensor(device, mask, [N, 1, L], { format });
        const masked = await followed(device, batch, [N, C, L], format, { weights });
        const whole = await followed(device, packed, [kept.length, C, 1], "channelsFirst", {});
        for (const name of ["jvp", "gradInput", "gradGradOutput", "owed"] as const) {
          assertClose(pick(masked[name]), whole[name], close, name);
        }
        assertClose(masked.gradWeight, whole.gradWeight, close, "gradWeight");
        // What is masked has no part in what x owes: 0, though x is NaN there.
        const outside = places.filter((p) => mask[p] === 0).map((p) => masked.gradInput[at(p, 0)]);
        assert.deepEqual(outside.map(Math.abs), outside.map(() => 0));
      }
    }
  });

  test("second order by a weight of 2 is that of the row twice", async (device) => {
    const [N, C] = [6, 3];
    const times = [1, 2, 1, 2, 2, 1];
    const rows = times.flatMap((count, n) => Array<number>(count).fill(n));
    const batch = drawn(N * C);
    // Copies move alike, and share what the row has of dy.
    const copied = (values: Float32Array, share = false) =>
      Float32Array.from({ length: rows.length * C }, (_, i) => {
        const n = rows[Math.floor(i / C)];
        return values[n * C + i % C] / (share ? times[n] : 1);
      });
    const weights = device.upload(Float32Array.from(times));
    const once = await followed(device, batch, [N, C, 1], "channelsFirst", { weights });
    const twice = await followed(
      device,
      {
        ...{ x: copied(batch.x), dy: copied(batch.dy, true) },
        ...{ along: copied(batch.along), a: copied(batch.a) },
      },
      [rows.length, C, 1],
      "channelsFirst",
      {},
    );
    const summed = (values: ArrayLike<number>, share = false) => {
      const sums = new Float32Array(N * C);
      rows.forEach((n, row) => {
        for (let c = 0; c < C; c++) sums[n * C + c] += values[row * C + c] / (share ? times[n] : 1);
      });
      return sums;
    };
    assertClose(copied(once.jvp), twice.jvp, close, "jvp");
    assertClose(once.gradInput, summed(twice.gradInput), close, "gradInput");
    assertClose(once.owed, summed(twice.owed), close, "gradInput with gradients of the moments");
    const mean = summed(twice.gradGradOutput, true);
    assertClose(once.gradGradOutput, mean, close, "gradGradOutput");
    assertClose(once.gradWeight, twice.gradWeight, close, "gradWeight");
  });

  test("second order of ranks without a positive weight, and of evaluation by weights", async (device) => {
    const [N, C] = [4, 3];
    const batch = drawn(N * C);
    const put = (values: Float32Array) => tensor(device, values, [N, C]);
    const [x, dy, along, a] = [batch.x, batch.dy, batch.along, batch.a].map(put);
    const state = initBatchNorm(device, C);
    const zeros = device.upload(new Float32Array(N));
    const tangents = { input: along, bias: state.weight };
    await runRanks(2, async (group) => {
      const effects = { device, group };
      const { saved } = await syncBatchNormForward(state, x, effects, { weights: zeros });
      // Nothing counts: y is the bias, and follows it alone.
      const moved = await toArray(device, await syncBatchNormJvp(saved, tangents, effects));
      assert.deepEqual([...moved], Array(N * C).fill(1));
      const directions = { gradInput: a };
      const second = await syncBatchNormBackwardBackward(saved, dy, directions, effects);
      for (const { data } of [second.gradInput, second.gradGradOutput]) {
        assert((await device.download(data)).every((value) => value === 0));
      }
    });
    const weights = device.upload(Float32Array.of(1, 0, 2, 0.5));
    const untracked = initBatchNorm(device, C, { trackRunningStats: false });
    const { saved } = batchNormForward(untracked, x, { device }, { weights });
    const options = { weights };
    const cotangents = { gradInput: a, gradWeight: state.weight };
    const pairs = [
      [
        batchNormInferJvp(untracked, x, tangents, { device }, options),
        batchNormJvp(saved, tangents, { device }),
      ],
      [
        batchNormInferBackwardBackward(untracked, x, dy, cotangents, { device }, options)
          .gradInput,
        batchNormBackwardBackward(saved, dy, cotangents, { device }).gradInput,
      ],
      // Running statistics do not ask who counts.
      [
        batchNormInferJvp(state, x, tangents, { device }, options),
        batchNormInferJvp(state, x, tangents, { device }),
      ],
    ];
    for (const [is, wanted] of pairs) {
      assert.deepEqual(await toArray(device, is), await toArray(device, wanted));
    }
  });
}

function drawn(length: number): Batch {
  const [x, dy, along, a] = [1, 2, 3, 4].map((seed) => normalArray(length, seed));
  return { x, dy, along, a };
}

/** All of second order of a batch, as numbers channels first. */
async function followed<A>(
  device: Device<A>,
  { x, dy, along, a }: Batch,
  [N, C, L]: readonly number[],
  format: Format,
  options: WeightOptions<A>,
) {
  return await region(device, async (scope) => {
    const put = (values: Float32Array) => {
      const laid = format === "channelsLast"
        ? permute(values, { channels: C, inner: L }, format)
        : values;
      return tensor(scope, laid, [N, C, L], { format });
    };
    const read = async (tensor: Tensor<A>) => {
      const values = await toArray(scope, tensor);
      if (tensor.format === "channelsFirst") return values;
      return permute(values, { channels: C, inner: L }, "channelsFirst");
    };
    const effects = { device: scope };
    const state = initBatchNorm(scope, C, { eps: 0.1 });
    const vector = (seed: number) => scope.upload(normalArray(C, seed));
    const { saved } = batchNormForward(state, put(x), effects, options);
    const [gradOutput, gradInput] = [put(dy), put(a)];
    const tangents = { input: put(along), weight: vector(5), bias: vector(6) };
    const cotangents = { gradInput, gradWeight: vector(7), gradBias: vector(8) };
    const { sums } = batchNormBackward(saved, gradOutput, effects, { keepSums: true });
    const second = batchNormBackwardBackward(saved, gradOutput, cotangents, effects, { sums });
    const moments = { dmean: vector(9), dvariance: vector(10) };
    const owed = batchNormBackwardMoments(saved, gradOutput, moments, effects).gradInput;
    return {
      jvp: await read(batchNormJvp(saved, tangents, effects)),
      gradInput: await read(second.gradInput),
      gradGradOutput: await read(second.gradGradOutput),
      gradWeight: await scope.download(second.gradWeight!),
      owed: await read(owed),
    };
  });
}
