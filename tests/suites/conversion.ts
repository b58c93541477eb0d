/** Conversion of models: what PyTorch documents, what it loses and we do not, and the way back. */

import assert from "node:assert/strict";
import * as fc from "fast-check";
import {
  applyLayer,
  type BatchNormLayer,
  type BatchNormOptions,
  type ConvertOptions,
  convertSyncBatchNorm,
  type Device,
  freeze,
  inferLayer,
  initLayer,
  initLazyLayer,
  type LayerKind,
  revertSyncBatchNorm,
  runRanks,
  stateToHost,
  tensor,
  toArray,
} from "../../mod.ts";
import { type DeviceKit, testsOf } from "../kit.ts";

const KINDS: readonly LayerKind[] = ["batchNorm1d", "batchNorm2d", "batchNorm3d", "batchNorm"];

/** A node of somebody else's. */
class Linear {
  readonly weight = Float32Array.of(1, 2);
  readonly norm = { kind: "layerNorm", weight: null };
}

/** A network with a layer of each kind, beside nodes that are not ours. */
function network<A>(device: Device<A>) {
  const shape: readonly number[] = [2, 2];
  return {
    stem: { linear: new Linear(), norm: initLayer(device, "batchNorm1d", 2) },
    blocks: [
      [initLayer(device, "batchNorm2d", 3, { activation: "relu" }), { kind: "relu" }],
      [initLayer(device, "batchNorm3d", 4, { affine: false }), { kind: "pool", shape }],
    ],
    head: { norm: initLayer(device, "batchNorm", 5, { trackRunningStats: false }), rate: 0.5 },
    other: [new Map([["norm", 1]]), Float32Array.of(1), () => 1, null, "batchNorm1d"] as const,
  };
}

/** The groups of a network's layers, in order. */
function groupsOf<A>(model: ReturnType<typeof network<A>>): readonly (string | null)[] {
  const [[first], [second]] = model.blocks as [[BatchNormLayer<A>], [BatchNormLayer<A>]];
  return [model.stem.norm, first, second, model.head.norm].map(({ processGroup }) => processGroup);
}

/** Registers the tests of conversion for a device. */
export function conversionSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("convertSyncBatchNorm() synchronises every batch norm of a tree, as PyTorch's does", (device) => {
    const model = network(device);
    const converted = convertSyncBatchNorm(model);
    assert.deepEqual(groupsOf(converted), ["world", "world", "world", "world"]);
    assert.deepEqual(groupsOf(model), [null, null, null, null], "the given model is not changed");
    const named = convertSyncBatchNorm(model, { processGroup: "half" });
    assert.deepEqual(groupsOf(named), ["half", "half", "half", "half"], "nested groups go down");
  });

  test("convertSyncBatchNorm() takes a model that is a batch norm itself, as PyTorch's does", (device) => {
    const layer = initLayer(device, "batchNorm1d", 2);
    assert.deepEqual(convertSyncBatchNorm(layer), { ...layer, processGroup: "world" });
    const paths: string[] = [];
    convertSyncBatchNorm(layer, { only: (path) => paths.push(path) > 0 });
    assert.deepEqual(paths, [""]);
    for (const other of [null, 7, "model", undefined, new Linear(), () => 1, {}]) {
      assert.throws(() => convertSyncBatchNorm(other), /must be or hold a layer as of initLayer/);
      assert.equal(convertSyncBatchNorm(other, { allowNone: true }), other);
      assert.deepEqual(convertSyncBatchNorm([other, layer]), [other, convertSyncBatchNorm(layer)]);
    }
  });

  test("convertSyncBatchNorm() shares states, and leaves all other nodes the same objects", (device) => {
    const model = network(device);
    const converted = convertSyncBatchNorm(model);
    assert.equal(converted.stem.norm.state, model.stem.norm.state);
    assert.equal(converted.head.norm.state, model.head.norm.state);
    assert.equal(converted.stem.linear, model.stem.linear, "there is nothing in it");
    assert.equal(converted.other, model.other);
    assert.equal(converted.blocks[0][1], model.blocks[0][1]);
    for (const made of [converted, converted.stem, converted.blocks, converted.stem.norm]) {
      assert(Object.isFrozen(made));
    }
    const none = { linear: new Linear(), layers: [{ kind: "relu" }] };
    assert.equal(convertSyncBatchNorm(none, { allowNone: true }), none);
    const synchronised = convertSyncBatchNorm(model);
    assert.equal(convertSyncBatchNorm(synchronised), synchronised);
  });

  test("a conversion keeps the activation (PyTorch's drops it)", async (device) => {
    const layer = initLayer(device, "batchNorm1d", 1, { activation: "relu" });
    const converted = convertSyncBatchNorm({ norm: layer, fixed: freeze(layer) });
    assert.deepEqual([converted.norm.activation, converted.fixed.frozen], ["relu", "statistics"]);
    const input = tensor(device, [-3, 3], [2, 1]);
    const outputs = await runRanks(2, async (world) => {
      const { output } = await applyLayer(converted.norm, input, { device, groups: { world } });
      return [...await toArray(device, output)];
    });
    for (const [low, high] of outputs) assert(low === 0 && Math.abs(high - 1) < 1e-5);
    assert.equal((await toArray(device, inferLayer(converted.norm, input, { device })))[0], 0);
  });

  test("a conversion keeps the counter, and all that a state holds (PyTorch's has lost it)", async (device) => {
    const options: BatchNormOptions = { eps: 0.5, momentum: null, bias: false };
    const layer = initLayer(device, "batchNorm1d", 1, options);
    const input = tensor(device, [-3, 3], [2, 1]);
    const { layer: trained } = await applyLayer(layer, input, { device });
    const { norm } = convertSyncBatchNorm({ norm: { ...trained, name: "stem" } });
    assert.equal(norm.state.numBatchesTracked, 1);
    assert.equal(norm.name, "stem");
    assert.equal(norm.kind, "batchNorm1d", "and with it the ranks that it takes");
    assert.deepEqual(
      await stateToHost(device, norm.state),
      await stateToHost(device, trained.state),
    );
  });

  test("a conversion replaces no group (PyTorch's does, without a word)", (device) => {
    const tower = { norm: initLayer(device, "batchNorm1d", 2, { processGroup: "tower" }) };
    const model = { tower, rest: [initLayer(device, "batchNorm1d", 2)] };
    const converted = convertSyncBatchNorm(model);
    assert.equal(converted.tower, tower, "it keeps its group");
    assert.equal(converted.rest[0].processGroup, "world");
    assert.throws(
      () => convertSyncBatchNorm(model, { processGroup: "world" }),
      (error: Error) => {
        assert(error instanceof TypeError);
        assert.equal(
          error.message,
          "Cannot convert the model as tower.norm must be in one group: current names are " +
            '"tower", which it is in, and "world"; revert it first, or leave it out by only',
        );
        return true;
      },
    );
    const others = convertSyncBatchNorm(model, {
      processGroup: "half",
      only: (path) => !path.startsWith("tower."),
    });
    assert.deepEqual(
      [others.tower.norm.processGroup, others.rest[0].processGroup],
      ["tower", "half"],
    );
    const pair = { a: model.tower.norm, b: model.tower.norm };
    assert.throws(
      () => convertSyncBatchNorm(pair, { processGroup: "half", only: (path) => path === "b" }),
      /as b must be in one group: current names are "tower", which it is in, and "half"/,
    );
    const again = convertSyncBatchNorm(others, { processGroup: "half", only: (p) => p[0] === "r" });
    assert.equal(again, others, "the same group once more");
  });

  test("a layer under two names stays one (PyTorch's converts the first alone)", (device) => {
    const shared = initLayer(device, "batchNorm1d", 2);
    const block = { norm: shared };
    const model = { encoder: block, decoder: [block, shared] as const, tail: shared };
    const converted = convertSyncBatchNorm(model);
    assert.equal(converted.encoder.norm.processGroup, "world");
    assert.equal(converted.decoder[0], converted.encoder, "branches that stand twice as well");
    assert.equal(converted.decoder[1], converted.encoder.norm);
    assert.equal(converted.tail, converted.encoder.norm);
    assert.throws(
      () => convertSyncBatchNorm(model, { only: (path) => path.startsWith("decoder") }),
      /as decoder\.0\.norm is the same layer as encoder\.norm: only must take both or neither/,
    );
    assert.throws(
      () => revertSyncBatchNorm(converted, { only: (path) => path === "tail" }),
      /Cannot revert the model as tail is the same layer as encoder\.norm/,
    );
  });

  test("revertSyncBatchNorm() is the way back (PyTorch has none)", (device) => {
    const model = network(device);
    const there = convertSyncBatchNorm(model, { processGroup: "half" });
    const back = revertSyncBatchNorm(there);
    assert.deepEqual(back, model);
    assert.equal(back.stem.norm.state, model.stem.norm.state);
    assert.equal(revertSyncBatchNorm(model), model);
    // Some were synchronised before: the name tells.
    const tower = { tower: initLayer(device, "batchNorm1d", 2, { processGroup: "tower" }), model };
    const both = convertSyncBatchNorm(tower);
    assert.deepEqual(revertSyncBatchNorm(both, { processGroup: "world" }), tower);
    assert.deepEqual(
      revertSyncBatchNorm(both, { only: (path) => path === "tower" }).tower.processGroup,
      null,
    );
    // Where a layer was in that very group before, a choice of paths tells.
    const mixed = convertSyncBatchNorm({ old: { ...tower.tower, processGroup: "world" }, model });
    assert.deepEqual(revertSyncBatchNorm(mixed, { only: (path) => path !== "old" }).model, model);
    assert.equal(
      revertSyncBatchNorm(mixed, { only: (path) => path !== "old" }).old.processGroup,
      "world",
    );
  });

  test("what has no children, getters, symbols and hidden fields are not looked into, and stay", (device) => {
    const layer = initLayer(device, "batchNorm1d", 2);
    const [hidden, symbol] = ["hidden", Symbol("norm")];
    let asked = 0;
    const own = { ...layer, inner: [layer] };
    const sparse: unknown[] = [layer, , null];
    sparse.length = 5;
    const model = Object.defineProperties(
      { layer, own, sparse, bytes: new Uint8Array(3), call: () => layer },
      {
        [hidden]: { value: layer },
        [symbol]: { value: layer, enumerable: true },
        made: { get: () => (asked++, { ...layer }), enumerable: true },
      },
    );
    const converted = convertSyncBatchNorm(model);
    assert.equal(converted.layer.processGroup, "world");
    assert.equal(converted.own.inner, own.inner, "a layer's own fields are its own");
    assert.equal(converted.bytes, model.bytes);
    assert.equal(converted.call, model.call);
    const getter = {
      get kind() {
        throw new Error("a getter is called");
      },
    };
    convertSyncBatchNorm(getter, { allowNone: true });
    assert.equal(asked, 0);
    // Nor into a layer that a conversion leaves as it is, though another stands in a field of it.
    const kept = { ...layer, processGroup: "world", own: [layer] as unknown[] };
    kept.own.push(kept);
    const both = convertSyncBatchNorm({ kept, layer });
    assert.equal(both.kept, kept);
    assert.equal(both.layer.processGroup, "world");
    assert.deepEqual(Reflect.ownKeys(converted), Reflect.ownKeys(model));
    for (const key of [hidden, symbol, "made"]) {
      const [is, was] = [converted, model].map((o) => Object.getOwnPropertyDescriptor(o, key));
      assert.deepEqual([is?.value, is?.get, is?.enumerable], [
        was?.value,
        was?.get,
        was?.enumerable,
      ]);
    }
    assert.deepEqual([converted.sparse.length, 1 in converted.sparse], [5, false]);
  });

  test("only selects by path: keys and indices joined by dots", (device) => {
    const model = network(device);
    const paths: string[] = [];
    convertSyncBatchNorm(model, { only: (path) => paths.push(path) < 0 });
    assert.deepEqual(paths, ["stem.norm", "blocks.0.0", "blocks.1.0", "head.norm"]);
    const some = convertSyncBatchNorm(model, { only: (path) => path.startsWith("blocks.") });
    assert.deepEqual(groupsOf(some), [null, "world", "world", null]);
    assert.equal(some.stem, model.stem);
    assert.equal(some.head, model.head);
  });

  test("lazy layers are converted too", async (device) => {
    const lazy = initLazyLayer("batchNorm1d", { eps: 0.5 });
    const converted = convertSyncBatchNorm([lazy])[0];
    assert.deepEqual(converted, { ...lazy, processGroup: "world" });
    const input = tensor(device, [1, 2], [1, 2]);
    await runRanks(2, async (world) => {
      const { layer } = await applyLayer(converted, input, { device, groups: { world } });
      assert.deepEqual([layer.processGroup, layer.state.numFeatures], ["world", 2]);
    });
  });

  test("conversions refuse cycles, nodes that claim to be ours, and options that are none", (device) => {
    const layer = initLayer(device, "batchNorm1d", 2);
    const cycle: Record<string, unknown> = { a: { norm: layer } };
    (cycle.a as Record<string, unknown>).b = [cycle.a];
    const claims = (node: object) => ({ blocks: [layer, node] });
    let deep: unknown = layer;
    for (let i = 0; i < 1000; i++) deep = i % 2 === 0 ? [deep] : { a: deep };
    assert.notEqual(convertSyncBatchNorm(deep), deep);
    const deeper = [deep];
    const options = (value: object) => () => convertSyncBatchNorm(layer, value as ConvertOptions);
    const wrong: [() => unknown, ErrorConstructor, RegExp][] = [
      [
        () => convertSyncBatchNorm(cycle),
        TypeError,
        /as a model must be a tree: current a\.b\.0 is a again, a cycle; a way back up/,
      ],
      [() => revertSyncBatchNorm(cycle), TypeError, /Cannot revert the model .* a cycle;/],
      [
        () => convertSyncBatchNorm(claims({ kind: "batchNorm2d", filters: 3 })),
        TypeError,
        /at blocks\.1 as a layer must be { kind, processGroup, state }: current value holds kind, filters$/,
      ],
      [
        () => convertSyncBatchNorm(claims({ ...layer, processGroup: undefined })),
        TypeError,
        /at blocks\.1 as processGroup must be the name of a group, or null for none: .* undefined/,
      ],
      [
        () => convertSyncBatchNorm(claims({ ...layer, state: 3 })),
        TypeError,
        /at blocks\.1 as the state must/,
      ],
      [
        () => convertSyncBatchNorm(claims({ ...layer, state: { ...layer.state, momentum: 2 } })),
        RangeError,
        /at blocks\.1 as momentum must be in \[0, 1\]/,
      ],
      [
        () =>
          convertSyncBatchNorm(
            claims({ ...layer, state: { ...layer.state, weight: Float32Array.of(1) } }),
          ),
        TypeError,
        /at blocks\.1 as the length of weight must be numFeatures: current values are 1 and 2/,
      ],
      [
        () =>
          convertSyncBatchNorm(claims({ ...layer, state: { ...layer.state, bias: undefined } })),
        TypeError,
        /at blocks\.1 as bias must be an array of a device, a Float32Array or null: .* undefined/,
      ],
      [
        () => convertSyncBatchNorm(deeper),
        RangeError,
        /at most 1000 branches deep: .* "0\.a\.0\.a/,
      ],
      [options({ processGroup: "" }), TypeError, /processGroup must be the name of a group: .* ""/],
      [options({ processGroup: { worldSize: 2 } }), TypeError, /groups themselves go into effects/],
      [options({ processGroup: 1n }), TypeError, /processGroup must be the name of a group: .* 1;/],
      [options({ only: "stem" }), TypeError, /only must be a function of a path/],
      [() => convertSyncBatchNorm(layer, "half" as never), TypeError, /options must be .* "half"/],
      [() => revertSyncBatchNorm(layer, null as never), TypeError, /options must be .* null/],
      [
        () => convertSyncBatchNorm(claims({ ...layer, kind: "BatchNorm1d" })),
        TypeError,
        /at blocks\.1 as kind must be "batchNorm1d", .*: current value is "BatchNorm1d"/,
      ],
    ];
    for (const [call, type, text] of wrong) {
      assert.throws(call, (error: Error) => {
        assert(error instanceof type, error.message);
        assert.match(error.message, text);
        return true;
      });
    }
  });

  test("converting and reverting any tree gives it back", (device) => {
    const layers = KINDS.map((kind, i) => initLayer(device, kind, i + 1));
    const { tree } = fc.letrec<{ tree: unknown; record: unknown; list: unknown; leaf: unknown }>(
      (tie) => ({
        tree: fc.oneof({ depthSize: "small" }, tie("leaf"), tie("record"), tie("list")),
        record: fc.dictionary(fc.string(), tie("tree"), { maxKeys: 4 }),
        list: fc.array(tie("tree"), { maxLength: 4 }),
        leaf: fc.oneof(
          fc.constantFrom(...layers),
          fc.constantFrom(...layers).map((layer) => ({ ...layer })),
          fc.constantFrom<unknown>(null, 7, "text", new Linear(), Float32Array.of(1)),
        ),
      }),
    );
    fc.assert(
      fc.property(tree, (model) => {
        const converted = convertSyncBatchNorm(model, { allowNone: true });
        assert.deepEqual(revertSyncBatchNorm(converted, { allowNone: true }), model);
        const [before, after] = [layersIn(model), layersIn(converted)];
        assert.equal(after.length, before.length);
        assert(after.every(({ processGroup }) => processGroup === "world"));
        after.forEach(({ state }, i) => assert.equal(state, before[i].state));
        assert.equal(new Set(after).size, new Set(before).size, "as many as there were");
        if (before.length === 0) assert.equal(converted, model);
      }),
      { seed: 5, numRuns: 200 },
    );
  });
}

/** All layers of a tree by a walk of its own, repeated ones repeatedly. */
function layersIn(tree: unknown): BatchNormLayer<unknown>[] {
  if (typeof tree !== "object" || tree === null || tree instanceof Linear) return [];
  if (KINDS.includes((tree as BatchNormLayer<unknown>).kind)) {
    return [tree as BatchNormLayer<unknown>];
  }
  return Object.values(tree).flatMap(layersIn);
}
