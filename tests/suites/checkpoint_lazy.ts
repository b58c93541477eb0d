/** State dicts of layers that have still to learn their channels. */

import assert from "node:assert/strict";
import {
  type BatchNormLayer,
  inferLayer,
  initLayer,
  initLazyLayer,
  type LazyBatchNormLayer,
  stateToHost,
  tensor,
  toArray,
} from "../../mod.ts";
import { fromStateDict, type StoredArray, toStateDict } from "../../lib/checkpoint.ts";
import { differences, f32, i64, networkOf } from "../checkpoint/state_dicts.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { normalArray } from "../random.ts";
import { census } from "../recording.ts";

type AnyLayer<A> = BatchNormLayer<A> | LazyBatchNormLayer;

/** Registers the tests of lazy layers for a device. */
export function lazySuite<A>(kit: DeviceKit<A>): void {
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
    const names = ["weight", "bias", "running_mean", "running_var"].map((name) => `norm.${name}`);
    const fitting = Object.fromEntries(names.map((name) => [name, f32(1, 2)]));
    const kernel = { ...f32(1, 2, 3, 4, 5, 6), shape: [3, 2] };
    for (const name of names) {
      const { mismatched, message } = load({ ...fitting, [name]: kernel }, true);
      assert.deepEqual(mismatched, [name]);
      assert(message.endsWith(`has "${name}" of shape (3, 2) instead of (2)`), message);
    }
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

    const untracked = { norm: initLazyLayer("batchNorm1d", { trackRunningStats: false }) };
    const both = { "norm.weight": f32(1), "norm.bias": f32(2) };
    const { missing } = fromStateDict(device, untracked, both, { version: 2 });
    assert.deepEqual(missing, [], "what tracks nothing counts nothing");
  });

  test("a lazy layer begins as its options say where the state dict says nothing", async (device) => {
    const lazy: AnyLayer<A> = initLazyLayer("batchNorm1d", { eps: 0.5, momentum: null });
    const model: Record<"norm", AnyLayer<A>> = { norm: lazy };
    const begin = {
      ...{ weight: Float32Array.of(1, 1), bias: Float32Array.of(0, 0) },
      ...{ runningMean: Float32Array.of(0, 0), runningVar: Float32Array.of(1, 1) },
    };
    const fields = Object.entries({
      ...{ weight: "weight", bias: "bias" },
      ...{ running_mean: "runningMean", running_var: "runningVar" },
    });
    for (const [suffix, field] of fields) {
      const dict = { [`norm.${suffix}`]: f32(3, 4), "norm.num_batches_tracked": i64(5n) };
      const loaded = fromStateDict(device, model, dict, { strict: false });
      const others = fields.filter(([other]) => other !== suffix);
      assert.deepEqual(loaded.missing, others.map(([other]) => `norm.${other}`));
      assert(loaded.model.norm.state !== null);
      assert.deepEqual(await stateToHost(device, loaded.model.norm.state), {
        ...{ numFeatures: 2, eps: 0.5, momentum: null, numBatchesTracked: 5 },
        ...{ ...begin, [field]: Float32Array.of(3, 4) },
      });
    }
  });

  test("a lazy layer's options are checked before anything is made, and nothing is drawn", async (device) => {
    let drawn = 0;
    const random = () => ++drawn / 8;
    const cases: [Record<string, unknown>, ErrorConstructor, RegExp][] = [
      [{ eps: -1 }, RangeError, /list\.0 as eps must be finite and >= 0/],
      [{ momentum: 2 }, RangeError, /list\.0 as momentum must be in \[0, 1\]/],
      [{ random }, TypeError, /list\.0 as the weight .* must begin as 1, .* hold random$/],
      [{ weightInit: "uniform", random }, TypeError, /list\.0 as the weight .* hold weightInit$/],
    ];
    const dict = { first: f32(1), "list.0.weight": f32(1, 2) };
    for (const [lazy, kind, message] of cases) {
      const { device: counted, alive } = census(device);
      const model = {
        first: device.upload(Float32Array.of(1)),
        list: [{ ...initLazyLayer("batchNorm1d"), lazy }],
      };
      const checked = (error: Error) => {
        assert.equal(error.constructor, kind);
        assert.match(error.message, message);
        return true;
      };
      const load = () => fromStateDict(counted, model, dict, { strict: false });
      assert.throws(load, checked);
      await assert.rejects(toStateDict(counted, model), checked);
      assert.equal(alive(), 0);
    }
    assert.equal(drawn, 0);
  });
}
