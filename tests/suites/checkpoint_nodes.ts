/** State dicts of nodes that stand in several places, or share what they are made of. */

import assert from "node:assert/strict";
import * as fc from "fast-check";
import { type Device, freeze, initLayer, release, stateToHost, tensor } from "../../mod.ts";
import {
  fromStateDict,
  type StateDict,
  type StoredArray,
  toStateDict,
} from "../../lib/checkpoint.ts";
import {
  changed,
  differences,
  f32,
  i64,
  Linear,
  networkOf,
  plain,
} from "../checkpoint/state_dicts.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { census, record } from "../recording.ts";

/** Registers the tests of shared nodes for a device. */
export function sharingSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("a node at several paths has all its names, and stays one", async (device) => {
    const [norm, bias] = [initLayer(device, "batchNorm1d", 1), device.upload(Float32Array.of(1))];
    const kernel = tensor(device, [3], [1, 1]);
    const model = { a: norm, b: { bias, kernel }, c: [norm, bias, kernel], norm: norm.state };
    const dict = await toStateDict(device, model);
    const vectors = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"];
    assert.deepEqual([...dict.keys()], [
      ...vectors.map((name) => `a.${name}`),
      ...["b.bias", "b.kernel"],
      ...vectors.map((name) => `c.0.${name}`),
      ...["c.1", "c.2"],
      ...vectors.map((name) => `norm.${name}`),
    ]);
    for (const name of vectors) assert.equal(dict.get(`a.${name}`), dict.get(`c.0.${name}`));
    assert.equal(dict.get("b.bias"), dict.get("c.1"));
    assert.equal(dict.get("b.kernel"), dict.get("c.2"));

    const three = changed(dict, {
      "a.weight": f32(3),
      "c.0.weight": f32(3),
      "norm.weight": f32(4),
    });
    const { model: loaded } = fromStateDict(device, model, three);
    assert.equal(loaded.a, loaded.c[0]);
    assert.equal(loaded.b.bias, loaded.c[1]);
    assert.equal(loaded.b.kernel, loaded.c[2]);
    assert.deepEqual((await stateToHost(device, loaded.a.state)).weight, Float32Array.of(3));
    // A state that stands by itself too is another node.
    assert.deepEqual((await stateToHost(device, loaded.norm)).weight, Float32Array.of(4));

    const half = changed(dict, { "c.0.weight": undefined, "c.1": undefined });
    assert.deepEqual(differences(() => fromStateDict(device, model, half)).missing, [
      "c.0.weight",
      "c.1",
    ]);
    const lax = fromStateDict(device, model, changed(half, { "a.weight": f32(9) }), {
      strict: false,
    });
    assert.equal(lax.model.a, lax.model.c[0]);
    assert.deepEqual(await toStateDict(device, lax.model).then((d) => d.get("c.0.weight")), f32(9));
  });

  test("names of one node that do not say the same are a mismatch, where PyTorch takes the last", async (device) => {
    const norm = initLayer(device, "batchNorm1d", 2);
    const model = { a: norm, b: norm };
    const dict = await toStateDict(device, model);
    for (
      const [name, array] of [
        ["weight", f32(1, 2)],
        ["bias", f32(0, -0)],
        ["num_batches_tracked", i64(1n)],
      ] as const
    ) {
      for (const strict of [true, false]) {
        const other = changed(dict, { [`b.${name}`]: array });
        const error = differences(() => fromStateDict(device, model, other, { strict }));
        assert.deepEqual(error.mismatched, [`b.${name}`]);
        assert.match(error.message, /has "b\.\w+" unlike "a\.\w+", which is the same node$/);
      }
    }
    // Each in a buffer of its own, behind an element that is not its.
    const inside = (...all: number[]): StoredArray => ({
      ...{ dtype: "F32", shape: [2] },
      data: Float32Array.from(all).subarray(1),
    });
    const weights = (a: StoredArray, b: StoredArray) =>
      fromStateDict(device, model, changed(dict, { "a.weight": a, "b.weight": b })).model.a;
    const { weight } = await stateToHost(device, weights(inside(9, 3, 4), inside(8, 3, 4)).state);
    assert.deepEqual(weight, Float32Array.of(3, 4));
    const { mismatched } = differences(() => weights(inside(3, 4, 5), inside(3, 4, 6)));
    assert.deepEqual(mismatched, ["b.weight"]);
    const wide: StoredArray = { dtype: "F64", shape: [2], data: Float64Array.of(1, 1) };
    fromStateDict(device, model, changed(dict, { "b.weight": wide }));
  });

  test("nodes that share arrays still do where they get the same, and come apart where not", async (device) => {
    const make = (on: Device<A>, values: readonly number[]) => {
      const norm = initLayer(on, "batchNorm1d", 2);
      const row = tensor(on, values, [1, 2]);
      return {
        norm,
        fixed: freeze(norm),
        state: norm.state,
        row,
        column: { ...row, shape: [2, 1] },
        bare: row.data,
      };
    };
    const model = make(device, [1, 2]);
    const dict = await toStateDict(device, make(device, [0, NaN]));
    const load = (dict: StateDict) => {
      const { device: counted, alive } = census(device);
      const { device: watched, calls } = record(counted);
      const { model: loaded } = fromStateDict(watched, model, dict);
      const uploads = calls.filter((call) => call === "upload").length;
      assert.equal(alive(), uploads);
      return { loaded, uploads, alive };
    };

    const { loaded, uploads, alive } = load(dict);
    assert.equal(uploads, 5);
    for (const vector of ["weight", "bias", "runningMean", "runningVar"] as const) {
      const own = loaded.norm.state[vector];
      assert.equal(loaded.fixed.state[vector], own);
      assert.equal(loaded.state[vector], own);
      assert.notEqual(own, model.norm.state[vector]);
    }
    assert.notEqual(loaded.state.weight, loaded.state.runningVar, "the same by chance alone");
    assert(loaded.column.data === loaded.row.data && loaded.bare === loaded.row.data);
    assert.equal(loaded.fixed.frozen, "statistics");
    assert.deepEqual(plain(await toStateDict(device, loaded)), plain(dict));
    release(device, loaded);
    assert.equal(alive(), 0);

    // -0 is not 0; and the third has what the first has, though not the second.
    const other = changed(dict, {
      "fixed.bias": f32(7, 8),
      column: { ...f32(-0, NaN), shape: [2, 1] },
    });
    const apart = load(other);
    assert.equal(apart.uploads, 7);
    const { norm, fixed, state, row, column, bare } = apart.loaded;
    assert(fixed.state.weight === norm.state.weight && fixed.state.bias !== norm.state.bias);
    assert(state.bias === norm.state.bias && bare === row.data && column.data !== row.data);
    assert.deepEqual(plain(await toStateDict(device, apart.loaded)), plain(other));
  });

  test("an array that a node shares with one that is left alone stays there", async (device) => {
    const norm = initLayer(device, "batchNorm1d", 1);
    const model = { norm, tied: norm.state.weight };
    const loaded = fromStateDict(device, model, { tied: f32(5) }, { strict: false }).model;
    assert.equal(loaded.norm, norm);
    assert(loaded.tied !== null);
    assert.deepEqual(await device.download(loaded.tied), Float32Array.of(5));
    assert.deepEqual((await stateToHost(device, norm.state)).weight, Float32Array.of(1));
  });

  test("any tree is there again after its way to the host and back", async (device) => {
    const shared = networkOf(device, 3);
    const leaves = [
      shared.stem.norm,
      shared.blocks[0].norm,
      shared.head,
      shared.stem.kernel,
      tensor(device, [1, 2, 3, 4, 5, 6], [1, 3, 2], { format: "channelsLast" }),
      shared.blocks[0].bias,
      ...[null, 5, "text", new Linear()],
    ];
    const { tree } = fc.letrec((tie) => ({
      leaf: fc.constantFrom(...leaves),
      tree: fc.oneof(
        { depthSize: "small", withCrossShrink: true },
        tie("leaf"),
        fc.array(tie("tree"), { maxLength: 3 }),
        fc.dictionary(fc.constantFrom("a", "b", "norm", "weight", "0"), tie("tree"), {
          maxKeys: 3,
        }),
      ),
    }));
    await fc.assert(
      fc.asyncProperty(fc.array(tree, { minLength: 1, maxLength: 4 }), async (model) => {
        const any = { allowNone: true };
        const dict = await toStateDict(device, model, any);
        const loaded = fromStateDict(device, model, dict, any);
        assert.deepEqual(plain(await toStateDict(device, loaded.model, any)), plain(dict));
        if (dict.size === 0) assert.equal(loaded.model, model);
        release(device, loaded.model, { keep: [model, shared, leaves] });
      }),
      { numRuns: 25, seed: 20 },
    );
  });
}
