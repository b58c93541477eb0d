/** Digits that float32 has and a careless sum loses: far from 0, beside outliers, over many slices, merged and scaled. */

import assert from "node:assert/strict";
import {
  batch,
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  type Device,
  type DType,
  referenceDevice,
  stateFromHost,
  stateToHost,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import { momentsWire, sumsWire } from "../../lib/wire.ts";
import { assertClose, EPSILON } from "../kit.ts";
import * as oracle from "../oracle.ts";
import { normalArray } from "../random.ts";
import { type Opener, poison } from "../webgpu_kit.ts";
import { hostState } from "./numbers.ts";
import type { WebGpuArray } from "../../kernels/webgpu_device.ts";

/** Registers the tests of digits. */
export function digitTests({ test }: Opener): void {
  test("y and gradInput are within 2e-6 of float64 at means 1e3 and 1e4, std 1", {
    everything: true,
  }, async ({ device }) => {
    for (
      const [mean, format] of [1e3, 1e4].flatMap((mean) =>
        (["channelsFirst", "channelsLast"] as const).map((format) => [mean, format] as const)
      )
    ) {
      const [shape, channels, inner] = [[4, 3, 33, 21], 3, 33 * 21];
      const length = 4 * channels * inner;
      const x = normalArray(length, 1, mean);
      // Grows with x: its slope is one of the two terms that are taken off.
      const dy = normalArray(length, 2).map((noise, i) => Math.fround(0.1 * noise + x[i] - mean));
      const host = { ...hostState(channels, true, true, 3), weight: null, bias: null };
      const lay = (values: Float32Array) =>
        tensor(
          device,
          format === "channelsFirst" ? values : oracle.permute(values, { channels, inner }, format),
          shape,
          { format },
        );
      const state = stateFromHost(device, host);
      const { output, saved } = batchNormForward(state, lay(x), { device });
      const { gradInput } = batchNormBackward(saved, lay(dy), { device });
      const back = async (tensor: Tensor<unknown>) => {
        const values = await toArray(device as Device<unknown>, tensor);
        return format === "channelsFirst"
          ? values
          : oracle.permute(values, { channels, inner }, "channelsFirst");
      };
      const batch = { values: x, channels, inner };
      const tolerance = { absolute: 2e-6, relative: 0 };
      assertClose(await back(output), oracle.trainForward(batch, host), tolerance, "y");
      const expected = oracle.trainBackward(batch, dy, host).gradInput;
      assertClose(await back(gradInput), expected, tolerance, "gradInput");
    }
  });

  test("a zero or an outlier as the first element of every slice costs no digits", {
    everything: true,
  }, async ({ device }) => {
    const [channels, inner] = [2, 5_003];
    for (const format of ["channelsFirst", "channelsLast"] as const) {
      for (const [first, mean] of [[0, 100], [1e4, 0], [-1e4, 1e3]]) {
        const values = normalArray(channels * inner, 4, mean);
        // Whatever the slices: every 16th position of the first eighth, and the first of each following stretch.
        for (let c = 0; c < channels; c++) {
          for (let i = 0; i < inner; i++) {
            if ((i < inner / 8 && i % 16 === 0) || i % 256 === 0) values[c * inner + i] = first;
          }
        }
        const lying = format === "channelsFirst"
          ? values
          : oracle.permute(values, { channels, inner }, format);
        const input = tensor(device, lying, [1, channels, inner], { format });
        const wire = await device.toWire(device.moments({ input }));
        const expected = oracle.statistics({ values, channels, inner });
        const std = expected.variance.map(Math.sqrt);
        for (let c = 0; c < channels; c++) {
          const off = Math.abs(wire[1 + c] - expected.mean[c]) / std[c];
          assert(off < 4 * EPSILON.float32, `mean off by ${off} std, first ${first}, mean ${mean}`);
        }
        const m2 = expected.variance.map((variance) => variance * inner);
        const relative = 8 * EPSILON.float32;
        assertClose(wire.subarray(3), m2, { absolute: 0, relative }, `m2, first ${first}`);
      }
    }
  });

  test(
    "a variance too small for a float32 counts as 0",
    { everything: true },
    async ({ device }) => {
      const state = stateFromHost(device, {
        ...hostState(1, false, true, 1),
        ...{ eps: 0, runningMean: Float32Array.of(0), runningVar: Float32Array.of(1e-39) },
      });
      const y = batchNormInfer(state, tensor(device, [1, -1], [2, 1]), { device });
      const [low, high] = await toArray(device, y);
      const { bias } = await stateToHost(device, state);
      assert.deepEqual([low, high], [bias![0], bias![0]]);
    },
  );
  test("a rank's own sums of many slices stand beside a group's of one", {
    everything: true,
    onBlock: poison,
  }, async ({ device }) => {
    const run = async <A>(device: Device<A>) => {
      const shape = [2, 3, 5_003];
      const [x, dy] = [1, 2].map((seed) => tensor(device, normalArray(30_018, seed), shape));
      const statistics = { source: "batch", moments: device.moments({ input: x }) } as const;
      const pass = { input: x, gradOutput: dy, statistics };
      const local = device.gradientSums(pass);
      const total = device.fromWire(sumsWire, Float64Array.of(1e4, 2e4, 3e4, 4e4, 5e4, 6e4));
      const ones = device.upload(Float32Array.of(1, 1, 1));
      const affine = { weight: ones, bias: ones, eps: 1e-5 };
      const made = device.gradients({ ...pass, affine, sums: { local, total } });
      const { gradInput, gradWeight, gradBias } = made;
      return await Promise.all([gradInput, gradWeight!, gradBias!].map(device.download));
    };
    const [actual, expected] = [await run(device), await run(referenceDevice())];
    actual.forEach((values, i) => {
      // Sums of 10,006 terms of size 1; gradients of the input of size 30.
      const absolute = (i === 0 ? 32 : 1_600) * EPSILON.float32;
      assertClose(values, expected[i], { absolute, relative: 4e-7 }, `${i}`);
    });
  });

  test("merge() is the moments of the union, of many slices and of few, far from 0", {
    everything: true,
    onBlock: poison,
  }, async ({ device }) => {
    for (const mean of [0, 1e4]) {
      const shapes = [[2, 3, 5_003], [1, 3, 7], [0, 3, 5]];
      const run = async <A>(device: Device<A>) => {
        const inputs = shapes.map((shape, seed) =>
          tensor(device, normalArray(shape[0] * 3 * shape[2], 1 + seed, mean), shape)
        );
        const made = inputs.map((input) => device.moments({ input }));
        const wire = device.fromWire(momentsWire, Float64Array.of(2, 1, 2, 3, 4, 5, 6));
        const all = [...made, wire];
        const pairs = all.flatMap((a) => all.map((b) => device.merge(a, b)));
        const launched = batch(device, (d) => ({ wire: d.toWire(d.merge(pairs[1], all[0])) }));
        return await Promise.all([...pairs.map(device.toWire), launched.wire]);
      };
      const [actual, expected] = [await run(device), await run(referenceDevice())];
      actual.forEach((wire, i) => {
        assert.equal(wire[0], expected[i][0]);
        // A share of the way between the means, of which each factor is rounded once.
        const apart = (i < 16 ? [i % 4, Math.floor(i / 4)] : []).includes(3) ? mean + 8 : 8;
        assertClose(wire.subarray(1, 4), expected[i].subarray(1, 4), {
          ...{ absolute: 4 * EPSILON.float32 * apart, relative: 2 ** -40 },
        }, `means of ${i} around ${mean}`);
        assertClose(wire.subarray(4), expected[i].subarray(4), {
          ...{ absolute: 0, relative: 16 * EPSILON.float32 },
        }, `m2 of ${i} around ${mean}`);
      });
    }
  });

  test("sums merge with those of the same statistics, and wires with wires", {
    everything: true,
    onBlock: poison,
  }, async ({ device }) => {
    const run = async <A>(device: Device<A>) => {
      const shape = [2, 3, 5_003];
      const [x, dy, more] = [1, 2, 3].map((seed) =>
        tensor(device, normalArray(30_018, seed, seed === 1 ? 1e3 : 0), shape)
      );
      const empty = tensor(device, [], [0, 3, 5]);
      const statistics = { source: "batch", moments: device.moments({ input: x }) } as const;
      const pass = { input: x, gradOutput: dy, statistics };
      const sums = device.gradientSums(pass);
      const others = device.gradientSums({ ...pass, gradOutput: more });
      const none = device.gradientSums({ input: empty, gradOutput: empty, statistics });
      const both = device.merge(sums, others);
      const affine = { weight: null, bias: null, eps: 1e-5 };
      // The gradient of a sum of gradients: merged sums have their statistics before them still.
      const gradOutput = {
        ...dy,
        data: device.addScaled({ x: dy.data, y: more.data, scale: 1 }),
      };
      const gradients = [both, device.merge(none, both)].map((local) =>
        device.gradients({ ...pass, gradOutput, affine, sums: { local, total: local } }).gradInput
      );
      const wires = [0, 1].map((i) =>
        device.fromWire(sumsWire, Float64Array.of(1, 2, 3, 4, 5, 6 + i))
      );
      return {
        sums: await device.toWire(both),
        nothing: await device.toWire(device.merge(none, none)),
        wires: await device.toWire(device.merge(wires[0], wires[1])),
        gradients: await Promise.all(gradients.map(device.download)),
      };
    };
    const [actual, expected] = [await run(device), await run(referenceDevice())];
    assert.deepEqual(actual.wires, expected.wires);
    assert.deepEqual(actual.nothing, expected.nothing);
    // Sums of 20,012 terms of size 1; gradients of size 3.
    const summed = { absolute: 1_600 * EPSILON.float32, relative: 4e-7 };
    assertClose(actual.sums, expected.sums, summed, "sums");
    actual.gradients.forEach((values, i) =>
      assertClose(values, expected.gradients[i], {
        ...{ absolute: 32 * EPSILON.float32, relative: 4e-7 },
      }, `gradInput ${i}`)
    );
  });

  test("sums of other statistics are refused, before anything is launched", {
    everything: true,
  }, async ({ device, recording }) => {
    const [x, dy] = [1, 2].map((seed) => tensor(device, normalArray(12, seed), [2, 3, 2]));
    const empty = tensor(device, [], [0, 3, 2]);
    const statistics = { source: "batch", moments: device.moments({ input: x }) } as const;
    const equal = { source: "batch", moments: device.moments({ input: x }) } as const;
    const affine = { weight: null, bias: null, eps: 0 };
    const pass = { input: x, gradOutput: dy, statistics };
    const sums = device.gradientSums(pass);
    const others: readonly (readonly [WebGpuArray, RegExp])[] = [
      [device.fromWire(sumsWire, new Float64Array(6)), /are from a wire/],
      [device.gradientSums({ ...pass, statistics: equal }), /are of other statistics/],
      [
        device.gradientSums({ input: empty, gradOutput: empty, statistics }),
        /are of an empty batch/,
      ],
    ];
    const { counts } = recording.during(() => {
      for (const [local, message] of others) {
        const given = { ...pass, affine, sums: { local, total: sums } };
        assert.throws(() => device.gradients(given), { name: "TypeError", message });
      }
      for (const other of others.slice(0, 2)) {
        assert.throws(() => device.merge(sums, other[0]), /made with the same statistics/);
      }
      assert.throws(() => device.merge(sums, statistics.moments), /it holds moments/);
      assert.throws(() => device.merge(x.data, sums), /as statistics: it holds the elements/);
    });
    assert.deepEqual([counts.dispatches, counts.submits], [0, 0]);
    await device.download(x.data);
  });

  test("addScaled() adds arrays of two storages, through windows", {
    everything: true,
    options: { maxBindingBytes: 65_536 },
  }, async ({ device, recording }) => {
    const others: DType[] = device.info.float16 ? ["float16", "float32"] : ["float32"];
    const values = Float32Array.from({ length: 40_000 }, (_, i) => i % 1_000);
    for (const other of others) {
      for (const [a, b] of [["float32", other], [other, "float32"]] as const) {
        const sum = device.addScaled({
          ...{ x: device.upload(values, a), y: device.upload(values, b), scale: 1 },
        });
        assert.equal(device.describe(sum).dtype, a);
        assert((await device.download(sum)).every((value, i) => value === 2 * values[i]));
      }
    }
    assert(recording.largestBinding() <= 65_536);
  });

  test("an infinite mean goes to the device and back", { everything: true }, async ({ device }) => {
    const wire = Float64Array.of(2, Infinity, 1);
    assert.deepEqual(await device.toWire(device.fromWire(momentsWire, wire)), wire);
  });
}
