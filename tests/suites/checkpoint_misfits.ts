/** State dicts that are another model's, or none at all. */

import assert from "node:assert/strict";
import { initBatchNorm, initLayer, stateToHost, tensor } from "../../mod.ts";
import {
  fromStateDict,
  readSafetensors,
  type StateDict,
  type StoredArray,
  toStateDict,
  writeSafetensors,
} from "../../lib/checkpoint.ts";
import {
  changed,
  differences,
  f32,
  i64,
  Linear,
  NAMES,
  networkOf,
  plain,
} from "../checkpoint/state_dicts.ts";
import { range } from "../data_parallel.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { census, record } from "../recording.ts";

/** Registers the tests of what does not fit for a device. */
export function misfitSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("one error names all that is missing, unexpected or of another shape", async (device) => {
    const model = networkOf(device);
    const dict = await toStateDict(device, model);
    const other = changed(dict, {
      "z.weight": f32(1),
      "stem.norm.zz": f32(1),
      "head.bias": undefined,
      "blocks.0.norm.running_var": undefined,
      "head.weight": f32(1, 2, 3),
      "stem.kernel": f32(...range(24)),
      "blocks.0.norm.num_batches_tracked": i64(-1n),
    });
    const { device: counted, alive } = census(device);
    const error = differences(() => fromStateDict(counted, model, other));
    assert.equal(error.name, "StateDictError");
    assert.deepEqual(error.missing, ["blocks.0.norm.running_var", "head.bias"]);
    assert.deepEqual(error.unexpected, ["z.weight", "stem.norm.zz"]);
    assert.deepEqual(error.mismatched, [
      "stem.kernel",
      "blocks.0.norm.num_batches_tracked",
      "head.weight",
    ]);
    assert.equal(
      error.message,
      "Cannot load the state dict as its entries must be those of the model: current dict " +
        'lacks "blocks.0.norm.running_var", "head.bias"; has "z.weight", "stem.norm.zz" besides; ' +
        'has "stem.kernel" of shape (24) instead of (2, 3, 2, 2), ' +
        '"blocks.0.norm.num_batches_tracked" of value -1 instead of an integer from 0 to 2^53 - 1, ' +
        '"head.weight" of shape (3) instead of (2)',
    );
    assert.equal(alive(), 0);
    for (const names of [error.missing, error.unexpected, error.mismatched]) {
      assert(Object.isFrozen(names));
    }

    const lax = differences(() => fromStateDict(counted, model, other, { strict: false }));
    assert.deepEqual([lax.missing, lax.unexpected], [[], []]);
    assert.deepEqual(lax.mismatched, error.mismatched);
    assert.doesNotMatch(lax.message, /lacks|besides/);
    assert.equal(alive(), 0);

    const { missing, message } = differences(() => fromStateDict(device, model, {}));
    assert.deepEqual(missing, NAMES.filter((name) => !name.endsWith("tracked")));
    for (const name of missing) assert(message.includes(`"${name}"`), "all in one message");
    for (const [length, end] of [[50, ""], [51, " and 1 more"], [60, " and 10 more"]] as const) {
      const many = Object.fromEntries(range(length).map((i) => [`n${i}`, f32(1)]));
      const { unexpected, message: long } = differences(() =>
        fromStateDict(device, {}, many, { allowNone: true })
      );
      assert.equal(unexpected.length, length);
      assert.match(long, new RegExp(`has "n0", "n1", .*, "n49"${end} besides$`));
    }
  });

  test("an entry's shape must be the model's own, to the last extent", (device) => {
    const wide = tensor(device, [1, 2], [1, 1, 1, 1, 1, 1, 1, 2]);
    const model = { x: tensor(device, [1, 2], [1, 2]), wide };
    const cases: [keyof typeof model, readonly number[], RegExp][] = [
      ["x", [1, 2, 1], /"x" of shape \(1, 2, 1\) instead of \(1, 2\)$/],
      ["x", [1, 2, 3], /"x" of shape \(1, 2, 3\) instead of \(1, 2\)$/],
      ["x", [1], /"x" of shape \(1\) instead of \(1, 2\)$/],
      ["x", [2, 1], /"x" of shape \(2, 1\) instead of \(1, 2\)$/],
      ["x", [], /"x" of shape \(\) instead of \(1, 2\)$/],
      ["wide", [1, 1, 1, 1, 1, 1, 2, 1], /of shape \(1(, 1){5}, 2, 1\) instead of/],
      [
        "wide",
        [1, 1, 1, 1, 1, 1, 1, 2, 1],
        /of shape \(1(, 1){6}, 2, …\) instead of \(1(, 1){6}, 2\)$/,
      ],
    ];
    for (const [name, shape, says] of cases) {
      const stored = { ...f32(...range(shape.reduce((a, b) => a * b, 1))), shape };
      const load = () => fromStateDict(device, model, { [name]: stored }, { strict: false });
      const { mismatched, message } = differences(load);
      assert.deepEqual(mismatched, [name]);
      assert.match(message, says);
    }
  });

  test("strict: false returns what was missing and unexpected, and shares what is missing", async (device) => {
    const model = networkOf(device);
    const dict = { "head.bias": f32(7, 8), other: f32(1), "stem.norm.bias": f32(5, 6) };
    const loaded = fromStateDict(device, model, dict, { strict: false });
    assert.deepEqual(loaded.unexpected, ["other"]);
    assert(Object.isFrozen(loaded.missing) && Object.isFrozen(loaded.unexpected));
    const absent = (name: string) => !(name in dict) && !name.endsWith("tracked");
    assert.deepEqual(loaded.missing, NAMES.filter(absent));
    assert.equal(loaded.model.stem.kernel, model.stem.kernel);
    assert.equal(loaded.model.blocks, model.blocks, "nothing was loaded below");
    const [old, { state }] = [model.stem.norm.state, loaded.model.stem.norm];
    assert.equal(state.weight, old.weight);
    assert.equal(state.runningVar, old.runningVar);
    assert.equal(state.numBatchesTracked, old.numBatchesTracked);
    assert.deepEqual((await stateToHost(device, state)).bias, Float32Array.of(5, 6));
    assert.deepEqual((await stateToHost(device, loaded.model.head)).bias, Float32Array.of(7, 8));
    const watched = record(device);
    const none = fromStateDict(watched.device, model, { other: f32(1) }, { strict: false });
    assert.equal(none.model, model);
    assert(!watched.calls.includes("batch"), "nothing to submit");

    const counted = fromStateDict(device, model, { "head.num_batches_tracked": i64(9n) }, {
      strict: false,
    });
    assert.deepEqual({ ...counted.model.head }, { ...model.head, numBatchesTracked: 9 });
  });

  test(
    "PyTorch test 20: a state without version or of version 1 and without the counter loads; with version 2 it is an error",
    async (device) => {
      const layer = initLayer(device, "batchNorm1d", 2);
      const counting = { ...layer, state: { ...layer.state, numBatchesTracked: 7 } };
      const model = { bn: counting, plain: initBatchNorm(device, 2, { trackRunningStats: false }) };
      const dict = changed(await toStateDict(device, model), {
        "bn.num_batches_tracked": undefined,
        "bn.bias": f32(1, 2),
      });
      for (const options of [{}, { version: null }, { version: 1 }] as const) {
        for (const strict of [true, false]) {
          const loaded = fromStateDict(device, model, dict, { ...options, strict });
          assert.deepEqual(loaded.missing, []);
          assert.equal(loaded.model.bn.state.numBatchesTracked, 7, "the model's own counter stays");
          const { bias } = await stateToHost(device, loaded.model.bn.state);
          assert.deepEqual(bias, Float32Array.of(1, 2));
        }
        // Only the counter may be missing.
        const less = changed(dict, { "bn.weight": undefined });
        const { missing } = differences(() => fromStateDict(device, model, less, options));
        assert.deepEqual(missing, ["bn.weight"]);
      }
      const { missing } = differences(() => fromStateDict(device, model, dict, { version: 2 }));
      assert.deepEqual(missing, ["bn.num_batches_tracked"]);
      const lax = fromStateDict(device, model, dict, { version: 2, strict: false });
      assert.deepEqual(lax.missing, ["bn.num_batches_tracked"]);
      assert.equal(lax.model.bn.state.numBatchesTracked, 7);
      for (const version of [0, 3, "2", NaN] as unknown as (1 | 2)[]) {
        assert.throws(() => fromStateDict(device, model, dict, { version }), RangeError);
      }
    },
  );

  test("a counter may have any dtype and PyTorch 0.3's shape, but must be a safe integer", (device) => {
    const model = { ...initBatchNorm(device, 1, { affine: false }), numBatchesTracked: 7 };
    const load = (counter: StoredArray) =>
      fromStateDict(device, model, { num_batches_tracked: counter }, { strict: false }).model;
    const scalar = { shape: [] };
    const good: [StoredArray, number][] = [
      [i64(0n), 0],
      [i64(2n ** 53n - 1n), 2 ** 53 - 1],
      [{ ...i64(5n), shape: [1] }, 5],
      [{ ...scalar, dtype: "I32", data: Int32Array.of(2 ** 24 + 1) }, 2 ** 24 + 1],
      [{ ...scalar, dtype: "F64", data: Float64Array.of(2 ** 40 + 1) }, 2 ** 40 + 1],
      [{ ...scalar, dtype: "F32", data: Float32Array.of(-0) }, 0],
      [{ ...scalar, dtype: "F16", data: Uint16Array.of(0x4200) }, 3],
      [{ ...scalar, dtype: "BF16", data: Uint16Array.of(0x4040) }, 3],
      [{ ...scalar, dtype: "U8", data: Uint8Array.of(255) }, 255],
      [{ ...scalar, dtype: "BOOL", data: Uint8Array.of(1) }, 1],
    ];
    for (const [counter, expected] of good) {
      assert.equal(load(counter).numBatchesTracked, expected, counter.dtype);
    }
    const bad: [StoredArray, RegExp][] = [
      [i64(2n ** 53n), /of value 9007199254740992 instead of an integer from 0 to 2\^53 - 1/],
      [i64(2n ** 53n + 1n), /of value 9007199254740993 instead/],
      [i64(-1n), /of value -1 instead/],
      [{ ...scalar, dtype: "F32", data: Float32Array.of(3.5) }, /of value 3\.5 instead/],
      [{ ...scalar, dtype: "F32", data: Float32Array.of(NaN) }, /of value NaN instead/],
      [{ ...scalar, dtype: "F64", data: Float64Array.of(Infinity) }, /of value Infinity instead/],
      [f32(1, 2), /of shape \(2\) instead of \(\)/],
      [{ ...i64(1n), shape: [1, 1] }, /of shape \(1, 1\) instead of \(\)/],
      [f32(), /of shape \(0\) instead of \(\)/],
    ];
    for (const [counter, message] of bad) {
      const error = differences(() => load(counter));
      assert.deepEqual(error.mismatched, ["num_batches_tracked"]);
      assert.match(error.message, message);
    }
  });

  test("what is no state dict is refused by name, and names may be any text", async (device) => {
    const model = { a: device.upload(Float32Array.of(1, 2)) };
    const cases: [unknown, ErrorConstructor, RegExp][] = [
      [null, TypeError, /must be a Map or a plain record: current value is null/],
      [[f32(1, 2)], TypeError, /must be a Map or a plain record/],
      [new Linear(), TypeError, /current value is of class Linear/],
      [
        () => 1,
        TypeError,
        /must be a Map or a plain record: current value is a function$/,
      ],
      [
        readSafetensors(writeSafetensors({})),
        TypeError,
        /readSafetensors returns, so pass its tensors$/,
      ],
      [new Map([[1, f32(1, 2)]]), TypeError, /every name must be a string: current value is 1/],
      [{ a: () => 1 }, TypeError, /of dtype, shape and data: current value is a function$/],
      [{ a: null }, TypeError, /entry "a" must be a record of dtype, shape and data/],
      [
        { a: Float32Array.of(1, 2) },
        TypeError,
        /the dtype of entry "a" must be one of U64 I64 F64/,
      ],
      [{ a: { ...f32(1, 2), dtype: "float32" } }, TypeError, /current value is "float32"/],
      [{ a: { ...f32(1, 2), dtype: "toString" } }, TypeError, /current value is "toString"/],
      [{ a: { ...f32(1, 2), dtype: "F64" } }, TypeError, /must be a Float64Array/],
      [{ a: { ...f32(1, 2), data: [1, 2] } }, TypeError, /must be a Float32Array/],
      [{ a: { ...f32(1, 2), shape: 2 } }, TypeError, /the shape of entry "a" must be an array/],
      [{ a: { ...f32(1, 2), shape: [3] } }, TypeError, /needs 3 elements: .* is 2$/],
      [{ a: { ...f32(1, 2), shape: [-1, -2] } }, RangeError, /every extent of entry "a"/],
      [{ a: { ...f32(1, 2), shape: [, 2] } }, RangeError, /every extent of entry "a"/],
      [{ a: f32(1, 2), b: { ...f32(1), shape: [0.5] } }, RangeError, /extent of entry "b"/],
    ];
    for (const [dict, kind, message] of cases) {
      const load = () => fromStateDict(device, model, dict as StateDict, { strict: false });
      assert.throws(load, (error: Error) => {
        assert.equal(error.constructor, kind, error.message);
        assert.match(error.message, /^Cannot load the state dict as /);
        assert.match(error.message, message);
        return true;
      });
    }

    const names = JSON.parse('{ "__proto__": 1, "constructor": 2, "": 3, "10": 4, "ü\\n": 5 }');
    const tree = (plus: number) =>
      Object.fromEntries(
        Object.entries(names).map((
          [key, value],
        ) => [key, device.upload(Float32Array.of(value as number + plus))]),
      );
    const dict = await toStateDict(device, tree(1));
    const loaded = fromStateDict(device, tree(0), Object.fromEntries(dict)).model;
    assert.deepEqual(plain(await toStateDict(device, loaded)), plain(dict));
    assert.equal(Object.getPrototypeOf(loaded), Object.prototype);
    const { unexpected } = fromStateDict(device, {}, dict, {
      strict: false,
      allowNone: true,
    });
    assert.deepEqual(unexpected, ["10", "__proto__", "constructor", "", "ü\n"]);
    assert.deepEqual(unexpected, [...dict.keys()]);
  });
}
