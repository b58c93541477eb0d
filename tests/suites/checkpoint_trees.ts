/** What loading and conversion leave alone in a model: what a branch is made of, and what is somebody else's. */

import assert from "node:assert/strict";
import { convertSyncBatchNorm, type Device, initLayer } from "../../mod.ts";
import { fromStateDict, toStateDict } from "../../lib/checkpoint.ts";
import { type DeviceKit, testsOf } from "../kit.ts";

/** A function that replaces all layers of a model. */
type Change = <T>(model: T) => Promise<T>;

/** What replaces layers. */
function changesOf<A>(device: Device<A>): readonly Change[] {
  return [
    async (model) => fromStateDict(device, model, await toStateDict(device, model)).model,
    (model) => Promise.resolve(convertSyncBatchNorm(model)),
  ];
}

/** Registers the tests of what stays for a device. */
export function treeSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("what a getter makes is not looked into, and it is not called", async (device) => {
    let calls = 0;
    const norm = initLayer(device, "batchNorm1d", 1);
    const make = () => {
      calls++;
      return initLayer(device, "batchNorm1d", 1);
    };
    const getter = { get: make, enumerable: true, configurable: true };
    const list = Object.defineProperty([norm, norm], 1, getter);
    const alone = Object.defineProperty({}, "made", getter);
    const settings = Object.freeze(Object.defineProperty({ device: "cpu" }, "made", getter));
    const model = Object.defineProperty({ norm, list, alone, settings }, "made", getter);
    const names = [...(await toStateDict(device, model)).keys()];
    assert.deepEqual(names.filter((name) => name.endsWith("weight")), [
      "norm.weight",
      "list.0.weight",
    ]);
    for (const change of changesOf(device)) {
      const changed = await change(model);
      assert.notEqual(changed.norm, norm);
      assert.equal(changed.list[0], changed.norm);
      assert(changed.alone === alone && changed.settings === settings);
      for (const [branch, key] of [[changed, "made"], [changed.list, "1"]] as const) {
        assert.equal(Object.getOwnPropertyDescriptor(branch, key)?.get, make);
      }
    }
    assert.equal(calls, 0);
  });

  test("an object of a class stays, and with a layer in it that is to be replaced it is refused", async (device) => {
    class Holder {
      readonly held: unknown;
      constructor(held: unknown) {
        this.held = held;
      }
    }
    class List extends Array<unknown> {}
    class Named extends Map<string, unknown> {}
    const norm = initLayer(device, "batchNorm1d", 1);
    for (const change of changesOf(device)) {
      const model = { holder: new Holder([1]), norm, list: List.of("x") };
      const changed = await change(model);
      assert.notEqual(changed.norm, norm);
      assert(changed.holder === model.holder && changed.list === model.list);
      for (
        const [held, name] of [
          [new Holder([norm]), "Holder"],
          [List.of(norm), "List"],
          [new Named([["norm", norm]]), "Named"],
        ] as const
      ) {
        await assert.rejects(
          // Not all changes are asynchronous.
          async () => await change({ norm, blocks: [held] }),
          (error: Error) => {
            assert(error instanceof TypeError);
            assert.match(error.message, new RegExp(`blocks\\.0 is to .* is of class ${name};`));
            return true;
          },
        );
      }
    }
  });

  test("Maps and Sets are looked into and made again, in their order", async (device) => {
    const norm = initLayer(device, "batchNorm1d", 1);
    const by = { any: "object" };
    const model = {
      heads: new Map<unknown, unknown>([["a", norm], [7, [norm]], [by, { norm }], ["rate", 1]]),
      all: new Set<unknown>([1, norm]),
    };
    const names = [...(await toStateDict(device, model)).keys()];
    assert.deepEqual(names.filter((name) => name.endsWith("running_mean")), [
      ...["heads.a.running_mean", "heads.7.0.running_mean", "heads.2.norm.running_mean"],
      "all.1.running_mean",
    ]);
    for (const change of changesOf(device)) {
      const { heads, all } = await change(model);
      const fresh = heads.get("a");
      assert.notEqual(fresh, norm);
      assert.deepEqual([...heads], [["a", fresh], [7, [fresh]], [by, { norm: fresh }], [
        "rate",
        1,
      ]]);
      assert.deepEqual([...all], [1, fresh]);
      assert.equal([...heads.keys()][2], by);
      assert(
        model.heads.get("a") === norm && model.all.has(norm),
        "the given model is not changed",
      );
    }
  });

  test("holes, symbols, hidden properties and prototypes stay", async (device) => {
    const norm = initLayer(device, "batchNorm1d", 1);
    const own = Symbol("own");
    const list: unknown[] = [];
    list[1] = norm;
    list[3] = undefined;
    list.length = 6;
    const record = Object.defineProperty({ norm, [own]: norm }, "hidden", { value: norm });
    const bare: Record<string, unknown> = Object.assign(Object.create(null), { norm, rate: 1 });
    const model = { list, record, bare };
    for (const change of changesOf(device)) {
      const changed = await change(model);
      const fresh = changed.record.norm;
      assert.notEqual(fresh, norm);
      assert.deepEqual([Object.keys(changed.list), changed.list.length], [["1", "3"], 6]);
      assert.equal(changed.list[1], fresh);
      assert.deepEqual(Reflect.ownKeys(changed.record), ["norm", "hidden", own]);
      assert.equal(changed.record[own], norm, "what is no key of ours is not looked into");
      const { value, enumerable } = Object.getOwnPropertyDescriptor(changed.record, "hidden")!;
      assert(value === norm && !enumerable);
      assert.equal(Object.getPrototypeOf(changed.bare), null);
      assert.deepEqual(Object.entries(changed.bare), [["norm", fresh], ["rate", 1]]);
      for (const made of Object.values(changed)) assert(Object.isFrozen(made));
    }
  });

  test("convertSyncBatchNorm() refuses a layer of another kind by its path", (device) => {
    const { state } = initLayer(device, "batchNorm1d", 1);
    const model = { blocks: [{ kind: "BatchNorm1d", processGroup: null, state }] };
    assert.throws(() => convertSyncBatchNorm(model), (error: Error) => {
      assert(error instanceof TypeError);
      assert.match(
        error.message,
        /^Cannot convert the model at blocks\.0 as kind must be "batchNorm1d", .* is "BatchNorm1d"$/,
      );
      return true;
    });
  });
}
