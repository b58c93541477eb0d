/** The one rule for trees: what every function that walks one finds, bears and refuses, whatever the device. */

import assert from "node:assert/strict";
import {
  allReduceGradients,
  assertReplicated,
  type BatchNormLayer,
  broadcastState,
  checkModel,
  convertSyncBatchNorm,
  type Device,
  initLayer,
  type ReduceGroup,
  type ReferenceArray,
  referenceDevice,
  region,
  release,
  revertSyncBatchNorm,
  runRanks,
  stateToHost,
} from "../mod.ts";
import { fromStateDict, StateDictError, toStateDict } from "../lib/checkpoint.ts";
import { failureOf } from "./data_parallel.ts";
import { census } from "./recording.ts";

const VECTORS = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"];

class Block {
  readonly norm: BatchNormLayer<ReferenceArray>;
  constructor(device: Device<ReferenceArray>) {
    this.norm = initLayer(device, "batchNorm2d", 2);
  }
}

class Net {
  readonly device = referenceDevice();
  readonly stem = initLayer(this.device, "batchNorm2d", 2);
  readonly blocks = [new Block(this.device), new Block(this.device)];
  readonly heads = new Map([["a", initLayer(this.device, "batchNorm2d", 2)]]);
  readonly forward = () => this.stem;
}

const LAYERS = ["stem", "blocks.0.norm", "blocks.1.norm", "heads.a"];

Deno.test("a model in classes is saved and checked, layer by layer", async () => {
  const net = new Net();
  const names = LAYERS.flatMap((path) => VECTORS.map((name) => `${path}.${name}`));
  const dict = await toStateDict(net.device, net);
  assert.deepEqual([...dict.keys()], names);
  checkModel(net, { device: net.device });
  assert.throws(() => checkModel(net, { device: referenceDevice() }), /at stem .*another device/);
  assert.throws(() => fromStateDict(net.device, net, new Map()), (error: unknown) => {
    assert(error instanceof StateDictError);
    assert.deepEqual(error.missing, names.filter((name) => !name.endsWith("tracked")));
    return true;
  });
  await runRanks(2, async (group) => {
    const { stem: norm } = new Net();
    const effects = { device: net.device, group };
    await assertReplicated({ nets: [net.heads, net.blocks[0].norm] }, effects);
    assert.notEqual(norm, net.stem);
  });
});

Deno.test("a model in classes is not made again: whoever would have to says where", async () => {
  const net = new Net();
  const refusals: [() => unknown, RegExp][] = [
    [
      () => convertSyncBatchNorm(net),
      /Cannot convert the model as what stands in blocks\.0 is to be/,
    ],
    [
      () => convertSyncBatchNorm([net], { only: (path) => path === "0.stem" }),
      /in 0 is to be replaced, .* is of class Net;/,
    ],
    [
      () => convertSyncBatchNorm({ net }, { only: (path) => path === "net.blocks.1.norm" }),
      /in net\.blocks\.1 is to be replaced, .* of class Block;/,
    ],
  ];
  for (const [call, message] of refusals) assert.throws(call, message);
  assert.equal(revertSyncBatchNorm(net), net, "nothing to do");
  const dict = await toStateDict(net.device, net);
  const counted = census(net.device);
  assert.throws(
    () => fromStateDict(counted.device, net, dict),
    /Cannot load .* in blocks\.0 is to be .* is of class Block;/,
  );
  assert.equal(counted.alive(), 0, "told before anything is made");
  const loose = fromStateDict(net.device, net, {}, { strict: false });
  assert.equal(loose.model, net);
  const holder = new (class Gradients {
    readonly weight = net.device.upload(Float32Array.of(1));
  })();
  const failures = await runRanks(2, (group) => {
    const effects = { device: net.device, group };
    return failureOf(
      group.rank === 0 ? allReduceGradients([holder], effects) : broadcastState([holder], effects),
    );
  });
  for (const { message } of failures) assert.match(message, /as 0 must be .* of class Gradients/);
});

Deno.test("a model whose layers nobody can see is refused, unless that is asked for", async () => {
  const device = referenceDevice();
  class Hidden {
    readonly #norm = initLayer(device, "batchNorm2d", 2);
    get norm() {
      return this.#norm;
    }
  }
  const allowNone = { allowNone: true };
  for (
    const model of [
      new Hidden(),
      {
        get norm() {
          throw new Error("called");
        },
      },
      [1],
      null,
    ]
  ) {
    const none = /must be or hold a layer.* neither private nor getters: current value/;
    assert.throws(() => convertSyncBatchNorm(model), none);
    assert.throws(() => revertSyncBatchNorm(model), none);
    assert.throws(() => checkModel(model, { device }), none);
    assert.throws(() => fromStateDict(device, model, {}), none);
    await assert.rejects(toStateDict(device, model), none);
    assert.equal(convertSyncBatchNorm(model, allowNone), model);
    assert.equal(revertSyncBatchNorm(model, allowNone), model);
    checkModel(model, { device }, allowNone);
    assert.equal(fromStateDict(device, model, {}, allowNone).model, model);
    assert.equal((await toStateDict(device, model, allowNone)).size, 0);
  }
});

Deno.test("a layer, state or tensor of a class is refused by its path, as it would lose the class", async () => {
  const device = referenceDevice();
  const norm = Object.assign(new (class Norm {})(), initLayer(device, "batchNorm2d", 2));
  assert.throws(() => convertSyncBatchNorm({ norm }), /at norm as a layer, .* is of class Norm$/);
  await assert.rejects(toStateDict(device, [norm]), /at 0 as a layer, .* is of class Norm$/);
});

Deno.test("arrays on the host are saved and loaded as they are, or refused by their path", async () => {
  const device = referenceDevice();
  const weight = Float32Array.of(1, 2, 3);
  const model = { linear: { weight }, tied: weight, norm: initLayer(device, "batchNorm1d", 1) };
  const reading = toStateDict(device, model);
  weight.fill(0);
  const dict = await reading;
  assert.deepEqual([...dict.keys()].slice(0, 2), ["linear.weight", "tied"]);
  const stored = { dtype: "F32", shape: [3], data: Float32Array.of(1, 2, 3) };
  assert.deepEqual(dict.get("linear.weight"), stored);
  const { model: loaded } = fromStateDict(device, model, dict);
  assert.deepEqual(loaded.linear.weight, stored.data);
  assert.equal(loaded.tied, loaded.linear.weight);
  assert.notEqual(loaded.tied.buffer, dict.get("tied")?.data.buffer, "memory of its own");
  assert.deepEqual(weight, new Float32Array(3), "the given model keeps its own");
  for (const odd of [new Float64Array(1), new Uint8Array(2), new DataView(new ArrayBuffer(1))]) {
    const { name } = odd.constructor;
    const message = new RegExp(`at a\\.0 as an array on the host .* is of class ${name}; leave it`);
    await assert.rejects(toStateDict(device, { a: [odd], norm: model.norm }), message);
    const only = (path: string) => path !== "a.0";
    const rest = await toStateDict(device, { a: [odd], norm: model.norm }, { only });
    assert.deepEqual([...rest.keys()], VECTORS.map((vector) => `norm.${vector}`));
  }
});

Deno.test("names of a state dict may have a prefix and be renamed, both ways", async () => {
  const device = referenceDevice();
  const make = (eps: number) => ({ net: { bn: initLayer(device, "batchNorm1d", 1, { eps }) } });
  const options = {
    prefix: "module.",
    rename: (name: string) => name.replace(/^net\.bn/, "features.norm"),
  };
  const dict = await toStateDict(device, make(0), options);
  const names = VECTORS.map((name) => `module.features.norm.${name}`);
  assert.deepEqual([...dict.keys()], names);
  const other = new Map([...dict, ["head.weight", dict.get(names[0])!]]);
  const { model } = fromStateDict(device, make(1), other, options);
  assert.equal(model.net.bn.state.eps, 1);
  assert.deepEqual(await stateToHost(device, model.net.bn.state), {
    ...await stateToHost(device, make(1).net.bn.state),
  });
  for (const wrong of [{ prefix: 1 }, { rename: "a" }, { only: "a" }]) {
    await assert.rejects(toStateDict(device, make(0), wrong as never), /prefix must be a text/);
  }
  await assert.rejects(
    toStateDict(device, make(0), { rename: () => 1 as never }),
    /rename must return a name for "net\.bn\.weight": current value is 1/,
  );
  await assert.rejects(toStateDict(device, [make(0), make(1)], { rename: () => "x" }), /two nodes/);
});

Deno.test("loading only some paths leaves all other nodes the same objects", async () => {
  const device = referenceDevice();
  const a = initLayer(device, "batchNorm1d", 1);
  const weight = a.state.weight!;
  const model = { a, tied: weight, b: initLayer(device, "batchNorm1d", 1) };
  const dict = await toStateDict(device, model);
  const only = (path: string) => path !== "a";
  const { model: loaded } = fromStateDict(device, model, dict, { only, strict: false });
  assert.equal(loaded.a, a, "though an array in it is a node elsewhere, and was replaced there");
  assert.notEqual(loaded.tied, weight);
  assert.notEqual(loaded.b, model.b);
});

Deno.test("a state dict whose names differ by one prefix is told so", async () => {
  const device = referenceDevice();
  const model = { a: initLayer(device, "batchNorm1d", 1), b: initLayer(device, "batchNorm1d", 2) };
  const parallel = await toStateDict(device, model, { prefix: "module." });
  const extra = new Map([...parallel, ["step", {
    dtype: "F32",
    shape: [0],
    data: new Float32Array(),
  }]]);
  for (const dict of [parallel, extra]) {
    assert.throws(
      () => fromStateDict(device, model, dict as typeof parallel),
      /; its names begin with "module\." besides: pass { prefix: "module\." }$/,
    );
  }
  fromStateDict(device, model, parallel, { prefix: "module." });
  const plain = await toStateDict(device, model);
  const inner = { net: model };
  const rename = (name: string) => name.slice(4);
  assert.throws(
    () => fromStateDict(device, inner, plain),
    /; its names lack "net\.", with which the model's begin: pass { rename: .*slice\(4\)/,
  );
  fromStateDict(device, inner, plain, { rename });
  const another = new Map([...parallel].slice(1));
  assert.throws(() => fromStateDict(device, model, another), /besides$/);
});

Deno.test("region() and release() reach what objects, Sets and keys of Maps hold, whatever a getter throws", () => {
  const counted = census(referenceDevice());
  const { device } = counted;
  class Held {
    readonly array = device.upload(Float32Array.of(1));
  }
  const result = region(device, (scope) => {
    const upload = () => scope.upload(Float32Array.of(1));
    const lost = upload();
    return {
      object: Object.assign(Object.create(Held.prototype), { array: upload() }),
      set: new Set([upload()]),
      map: new Map<unknown, unknown>([[upload(), [upload()]], [Symbol("own"), upload()]]),
      get made(): ReferenceArray {
        throw new Error(`called for ${lost}`);
      },
    };
  });
  assert.equal(counted.alive(), 5, "all but the lost one");
  release(device, result, { keep: result.set });
  assert.equal(counted.alive(), 1);
  release(device, result);
  assert.equal(counted.alive(), 0);
});

Deno.test("what is somebody else's may go in circles and be deep, what is ours may not", async () => {
  const device = referenceDevice();
  const norm = initLayer(device, "batchNorm1d", 1);
  class Foreign {
    readonly self: unknown = this;
    chain: unknown = null;
  }
  const foreign = new Foreign();
  for (let i = 0; i < 20_000; i++) foreign.chain = { next: foreign.chain };
  const model = { foreign, norm };
  assert.equal((await toStateDict(device, model)).size, 5);
  const converted = convertSyncBatchNorm(model);
  assert.equal(converted.foreign, foreign);
  assert.equal(converted.norm.processGroup, "world");
  class Child {
    readonly norm = norm;
    readonly parent: unknown;
    constructor(parent: unknown) {
      this.parent = parent;
    }
  }
  const parent: Record<string, unknown> = {};
  parent.child = new Child(parent);
  assert.throws(
    () => checkModel(parent, { device }),
    /current child\.parent is the model itself again, a cycle; .* private #field/,
  );
  let deep: unknown = norm;
  for (let i = 0; i < 20_000; i++) deep = { next: deep };
  assert.throws(() => convertSyncBatchNorm(deep), /at most 1000 branches deep/);
  await assert.rejects(toStateDict(device, deep), /at most 1000 branches deep/);
});

Deno.test("a tree of 5,000 branches is refused as gradients, one of empty branches without end is taken", async () => {
  const device = referenceDevice();
  let deep: unknown = device.upload(Float32Array.of(1));
  for (let i = 0; i < 5000; i++) deep = i % 2 ? [deep] : { deep };
  let empty: unknown = { none: null };
  for (let i = 0; i < 60; i++) empty = [empty, empty];
  let full: unknown = device.upload(Float32Array.of(1));
  for (let i = 0; i < 60; i++) full = [full, full];
  await runRanks(2, async (group) => {
    const effects = { device, group };
    const calls: ((tree: unknown, e: typeof effects) => Promise<unknown>)[] = [
      allReduceGradients,
      broadcastState,
      assertReplicated,
    ];
    for (const call of calls) {
      const { message } = await failureOf(call(deep, effects));
      assert.match(message, /must be at most 1000 branches deep/);
    }
    const same = await allReduceGradients(empty, effects) as unknown[];
    assert.equal(same[0], same[1]);
    await broadcastState(empty, effects);
    await assertReplicated(empty, effects);
  });
  const alone = (group: ReduceGroup) => allReduceGradients(full, { device, group });
  await assert.rejects(runRanks(1, alone), /RangeError: .* at most 100000 places/);
  await assert.rejects(toStateDict(device, full), /RangeError: .* at most 100000 places/);
});

Deno.test("gradients in Maps and Sets are reduced, by key whatever the order", async () => {
  const device = referenceDevice();
  const results = await runRanks(2, async (group) => {
    const [a, b] = [1, 10].map((x) => device.upload(Float32Array.of(x * (group.rank + 1))));
    const pairs: [string, ReferenceArray][] = [["a", a], ["b", b]];
    const tree = { map: new Map(group.rank ? pairs.toReversed() : pairs), set: new Set([a]) };
    const { map, set } = await allReduceGradients(tree, { device, group }, { average: false });
    const read = async (array?: ReferenceArray) => [...await device.download(array!)];
    return [await read(map.get("a")), await read(map.get("b")), await read([...set][0])];
  });
  assert.deepEqual(results, [[[3], [30], [3]], [[3], [30], [3]]]);
});

Deno.test("a getter in gradients is refused, and not called", async () => {
  const device = referenceDevice();
  const tree = {
    get weight(): ReferenceArray {
      throw new Error("called");
    },
  };
  await runRanks(2, async (group) => {
    const { message } = await failureOf(allReduceGradients(tree, { device, group }));
    assert.match(message, /as weight must be .*: current value is what a getter makes/);
  });
});
