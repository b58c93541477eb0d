/** State dicts of nodes that stand in several places, and of layers that have still to learn their channels. */

import assert from "node:assert/strict";
import * as fc from "fast-check";
import {
  type BatchNormLayer,
  inferLayer,
  initLayer,
  initLazyLayer,
  type LazyBatchNormLayer,
  release,
  stateToHost,
  tensor,
  toArray,
} from "../../mod.ts";
import { fromStateDict, type StoredArray, toStateDict } from "../../lib/checkpoint.ts";
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
import { normalArray } from "../random.ts";
import { census } from "../recording.ts";

type AnyLayer<A> = BatchNormLayer<A> | LazyBatchNormLayer;

/** Registers the tests of shared nodes and lazy layers for a device. */
export function sharingSuite<A>(kit: DeviceKit<A>): void {
  sharingTests(kit);
  lazyTests(kit);
}

function sharingTests<A>(kit: DeviceKit<A>): void {
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
    const wide: StoredArray = { dtype: "F64", shape: [2], data: Float64Array.of(1, 1) };
    fromStateDict(device, model, changed(dict, { "b.weight": wide }));
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
        const dict = await toStateDict(device, model);
        const loaded = fromStateDict(device, model, dict);
        assert.deepEqual(plain(await toStateDict(device, loaded.model)), plain(dict));
        if (dict.size === 0) assert.equal(loaded.model, model);
        release(device, loaded.model, { keep: [model, shared, leaves] });
      }),
      { numRuns: 25, seed: 20 },
    );
  });
}

function lazyTests<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("a lazy layer takes its channels from the state dict", async (device) => {
    const full = {
      norm: networkOf(device).stem.norm,
      flat: initLayer(device, "batchNorm1d", 3, { bias: false }),
    };
    const dict = await toStateDict(device, full);
    const lazy: Record<"norm" | "flat", AnyLayer<A>> = {
      norm: initLazyLayer("batchNorm", { activation: "relu", momentum: 0.25 }),
      flat: initLazyLayer("batchNorm1d", { bias: false, processGroup: "world" }),
    };
    const { norm, flat } = fromStateDict(device, lazy, dict).model;
    assert(norm.state !== null && flat.state !== null);
    assert.deepEqual({ ...norm, state: 0 }, { ...full.norm, state: 0 }, "no options are left");
    assert.deepEqual(
      await stateToHost(device, norm.state),
      await stateToHost(device, full.norm.state),
    );
    assert.deepEqual([flat.state.numFeatures, flat.state.bias, flat.processGroup], [
      3,
      null,
      "world",
    ]);
    assert(Object.isFrozen(norm) && Object.isFrozen(norm.state));
    const input = tensor(device, normalArray(6, 1), [2, 3]);
    await toArray(device, inferLayer(flat as BatchNormLayer<A>, input, { device }));

    const bare = initLazyLayer("batchNorm1d", { affine: false, trackRunningStats: false });
    const untouched = fromStateDict(device, { bare }, {}).model;
    assert.equal(untouched.bare, bare);
  });

  test("a lazy layer's entries must agree in their length", (device) => {
    const model = { norm: initLazyLayer("batchNorm1d") };
    const load = (entries: Record<string, StoredArray>, strict: boolean) =>
      differences(() => fromStateDict(device, model, entries, { strict }));
    const vectors = {
      "norm.bias": f32(1, 2, 3, 4),
      "norm.running_mean": f32(1, 2, 3),
      "norm.weight": f32(1, 2, 3),
      "norm.running_var": { ...f32(1, 2, 3), shape: [1, 3] },
    };
    const error = load(vectors, true);
    assert.deepEqual(error.mismatched, ["norm.bias", "norm.running_var"]);
    assert.match(error.message, /"norm\.bias" of shape \(4\) instead of \(3\)/);
    for (const shape of [[0], [1, 0], [0, 1]]) {
      const { mismatched, message } = load({ "norm.weight": { ...f32(), shape } }, false);
      assert.deepEqual(mismatched, ["norm.weight"]);
      assert.match(message, /instead of \(C\), C >= 1$/);
    }
  });

  test("a lazy layer of which the state dict has nothing is missing, or stays lazy", (device) => {
    const lazy = initLazyLayer("batchNorm1d");
    const model = { norm: lazy as AnyLayer<A> };
    const names = ["norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"];
    assert.deepEqual(differences(() => fromStateDict(device, model, {})).missing, names);
    const two = differences(() => fromStateDict(device, model, {}, { version: 2 }));
    assert.deepEqual(two.missing, [...names, "norm.num_batches_tracked"]);
    const counter = { "norm.num_batches_tracked": i64(3n) };
    const lax = fromStateDict(device, model, counter, { strict: false });
    assert.equal(lax.model, model);
    assert.deepEqual(lax.missing, names);
    assert.deepEqual(lax.unexpected, ["norm.num_batches_tracked"], "there is no place for it");
  });

  test("a lazy layer begins as its options say where the state dict says nothing", async (device) => {
    let drawn = 0;
    const random = () => ++drawn / 8;
    const uniform = { weightInit: "uniform", random } as const;
    const model = { norm: initLazyLayer("batchNorm1d", uniform) as AnyLayer<A> };
    const weight = { "norm.weight": f32(3, 4), "norm.num_batches_tracked": i64(5n) };
    const some = fromStateDict(device, model, weight, { strict: false });
    assert(some.model.norm.state !== null);
    const { weight: loaded, bias, runningMean, runningVar, numBatchesTracked } = await stateToHost(
      device,
      some.model.norm.state,
    );
    assert.deepEqual([loaded, bias], [Float32Array.of(3, 4), new Float32Array(2)]);
    assert.deepEqual([runningMean, runningVar], [new Float32Array(2), Float32Array.of(1, 1)]);
    assert.equal(numBatchesTracked, 5);

    drawn = 0;
    const late = {
      norm: { ...model.norm, lazy: { ...uniform, trackRunningStats: false } },
    } as typeof model;
    const other = fromStateDict(device, late, { "norm.bias": f32(1, 2) }, { strict: false });
    assert(other.model.norm.state !== null);
    const { weight: begun } = await stateToHost(device, other.model.norm.state);
    assert.deepEqual(begun, Float32Array.of(1 / 8, 2 / 8));
    drawn = 0;
    const all = { "norm.weight": f32(1, 2), "norm.bias": f32(1, 2) };
    fromStateDict(device, late, all);
    assert.equal(drawn, 0, "what is not of use is not drawn");
  });

  test("a lazy layer's options are checked before anything is made", (device) => {
    const cases: [Record<string, unknown>, ErrorConstructor, RegExp][] = [
      [{ eps: -1 }, RangeError, /eps must be finite and >= 0/],
      [{ momentum: 2 }, RangeError, /momentum must be in \[0, 1\]/],
      [{ weightInit: "uniform" }, TypeError, /needs options\.random/],
      [{ weightInit: "normal" }, TypeError, /weightInit must be/],
    ];
    const dict = { first: f32(1), "list.0.weight": f32(1, 2) };
    for (const [options, kind, message] of cases) {
      const { device: counted, alive } = census(device);
      const model = {
        first: device.upload(Float32Array.of(1)),
        list: [initLazyLayer("batchNorm1d", options)],
      };
      assert.throws(
        () => fromStateDict(counted, model, dict, { strict: false }),
        (error: Error) => {
          assert.equal(error.constructor, kind);
          assert.match(
            error.message,
            /^Cannot load the state dict at list\.0 with its lazy options: /,
          );
          assert.match(error.message, message);
          return true;
        },
      );
      assert.equal(alive(), 0);
    }
  });
}
