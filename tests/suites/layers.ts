/** Layers: one way to run local, synchronised, lazy and frozen batch norms. */

import assert from "node:assert/strict";
import {
  allReduceGradients,
  applyLayer,
  backwardLayer,
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  type BatchNormLayer,
  broadcastState,
  checkModel,
  convertSyncBatchNorm,
  type Device,
  freeze,
  inferLayer,
  initLayer,
  initLazyLayer,
  type LayerEffects,
  type LayerKind,
  type LayerOptions,
  type LazyBatchNormLayer,
  materializeLayer,
  type ReduceGroup,
  referenceDevice,
  region,
  release,
  runRanks,
  stateToHost,
  syncBatchNormBackward,
  syncBatchNormForward,
  type Tensor,
  tensor,
  toArray,
  unfreeze,
} from "../../mod.ts";
import { failureOf, failureOnAll, same } from "../data_parallel.ts";
import { assertClose, type DeviceKit, testsOf } from "../kit.ts";
import { normalArray } from "../random.ts";
import { census, record } from "../recording.ts";

const READBACKS = ["download", "downloadAll", "momentsToWire", "sumsToWire"];

/** The ranks that each kind takes, and what PyTorch says of others. */
const KINDS: readonly [LayerKind, readonly number[], string][] = [
  ["batchNorm1d", [2, 3], "expected 2D or 3D input (got 4D input)"],
  ["batchNorm2d", [4], "expected 4D input (got 5D input)"],
  ["batchNorm3d", [5], "expected 5D input (got 4D input)"],
  ["batchNorm", [2, 3, 4, 5, 6], ""],
];

/** A batch of a rank: extents 4, 3, then 2 each. */
function batchOf<A>(device: Device<A>, rank: number, seed = 1): Tensor<A> {
  const shape = [4, 3, ...Array(rank - 2).fill(2)];
  return tensor(device, normalArray(12 * 2 ** (rank - 2), seed), shape);
}

/** A group that must not be asked for anything. */
const untouched: ReduceGroup = {
  worldSize: 2,
  allReduce: () => {
    throw new Error("communicates");
  },
};

/** Registers the tests of layers for a device. */
export function layerSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("a layer takes the batches of its kind, in PyTorch's words", async (device) => {
    for (const [kind, ranks, words] of KINDS) {
      const layer = initLayer(device, kind, 3);
      for (const rank of ranks) {
        const input = batchOf(device, rank);
        const { output } = await applyLayer(layer, input, { device });
        assert.deepEqual(output.shape, input.shape);
        assert.deepEqual(inferLayer(layer, input, { device }).shape, input.shape);
      }
      if (words === "") continue;
      const [got] = /\d(?=D input\))/.exec(words) ?? [];
      const wrong = batchOf(device, Number(got));
      const { name, message } = await failureOf(applyLayer(layer, wrong, { device }));
      assert.deepEqual(
        [name, message],
        [
          "TypeError",
          `Cannot apply the layer as ${kind} ${words}: current shape is (${
            wrong.shape.join(", ")
          })`,
        ],
      );
      assert.throws(() => inferLayer(layer, wrong, { device }), { name: "TypeError" });
    }
    const flat = { ...batchOf(device, 2), shape: [12] };
    const { message } = await failureOf(
      applyLayer(initLayer(device, "batchNorm", 3), flat, { device }),
    );
    assert.match(message, /batchNorm expected at least 2D input \(got 1D input\)/);
  });

  test("a local layer is batchNormForward(), without a map, a readback or an await", async (device) => {
    const watched = record(device);
    const layer = initLayer(device, "batchNorm2d", 3);
    const input = batchOf(device, 4);
    const options = { residual: batchOf(device, 4, 2), activation: "relu" } as const;
    const { calls } = watched;
    const pending = applyLayer(layer, input, { device: watched.device }, options);
    const launched = calls.length;
    const { output, layer: next, saved } = await pending;
    assert.equal(calls.length, launched, "all is launched before the first await");
    assert(!calls.some((call) => READBACKS.includes(call)), calls.join());
    assert(saved.kind === "local");
    const plain = batchNormForward(layer.state, input, { device }, options);
    const gradOutput = batchOf(device, 4, 3);
    const back = await backwardLayer(saved, gradOutput, { device });
    const expected = batchNormBackward(plain.saved, gradOutput, { device });
    assert.deepEqual(await toArray(device, output), await toArray(device, plain.output));
    assert.deepEqual(await stateToHost(device, next.state), await stateToHost(device, plain.state));
    await assertSameGradients(device, back, expected);
  });

  test("a synchronised layer is syncBatchNormForward() over the group that it names", async (device) => {
    const layer = initLayer(device, "batchNorm1d", 3, { processGroup: "pair" });
    await runRanks(2, async (group) => {
      const [input, gradOutput] = [batchOf(device, 3, group.rank), batchOf(device, 3, 7)];
      const groups = { other: untouched, pair: group };
      const applied = await applyLayer(layer, input, { device, groups });
      const plain = await syncBatchNormForward(layer.state, input, { device, group });
      assert(applied.saved.kind === "group");
      assert.equal(applied.saved.processGroup, "pair");
      const back = await backwardLayer(applied.saved, gradOutput, { device, groups });
      const expected = await syncBatchNormBackward(plain.saved, gradOutput, { device, group });
      assert.deepEqual(await toArray(device, applied.output), await toArray(device, plain.output));
      assert.deepEqual(
        await stateToHost(device, applied.layer.state),
        await stateToHost(device, plain.state),
      );
      assert.deepEqual([applied.layer.kind, applied.layer.processGroup], ["batchNorm1d", "pair"]);
      await assertSameGradients(device, back, expected);
    });
  });

  test("a synchronised layer calls its collective before the first await", async (device) => {
    const labels: (string | undefined)[] = [];
    const group: ReduceGroup = {
      worldSize: 2,
      allReduce: (_local, _combine, options) => {
        labels.push(options?.label);
        return new Promise<never>(() => {});
      },
    };
    const groups = { world: group };
    const layer = initLayer(device, "batchNorm2d", 3, { processGroup: "world" });
    applyLayer(layer, batchOf(device, 4), { device, groups });
    applyLayer(initLazyLayer("batchNorm", { processGroup: "world" }), batchOf(device, 2), {
      ...{ device, groups },
    });
    await Promise.resolve();
    assert.deepEqual(labels, [
      'applyLayer batchNorm2d "world" C=3 float32',
      'applyLayer batchNorm "world" C=3 float32',
    ]);
  });

  test("layers of one model share statistics with different groups", async (device) => {
    const [wide, narrow] = ["world", "half"].map((processGroup) =>
      initLayer(device, "batchNorm1d", 1, { eps: 0, processGroup })
    );
    const outputs = await runRanks(4, async (world) => {
      const half = await world.split(world.rank < 2 ? 0 : 1);
      const input = tensor(device, [[0, 2, 10, 12][world.rank]], [1, 1]);
      const effects = { device, groups: { world, half } };
      const [a, b] = await Promise.all([wide, narrow].map(async (layer) => {
        const { output } = await applyLayer(layer, input, effects);
        return (await toArray(device, output))[0];
      }));
      return [a, b];
    });
    const deviation = Math.sqrt((36 + 16 + 16 + 36) / 4);
    const slack = 4 * kit.ulps * 2 ** -23;
    for (const [rank, [a, b]] of outputs.entries()) {
      assert(Math.abs(a - [-6, -4, 4, 6][rank] / deviation) <= slack, `${a}`);
      assert(Math.abs(b - [-1, 1, -1, 1][rank]) <= slack, `${b}`);
    }
  });

  test("a converted model on uneven ranks equals one process with the whole batch", async (device) => {
    const counts = [3, 0, 1, 2];
    const starts = [0, 3, 3, 4];
    const [C, inner] = [3, 4];
    for (const [kind, spatial] of [["batchNorm1d", [4]], ["batchNorm2d", [2, 2]]] as const) {
      const [x, dy] = [normalArray(6 * C * inner, 31, 5), normalArray(6 * C * inner, 32)];
      const local = { norm: initLayer(device, kind, C, { activation: "relu" }) };
      const part = (values: Float32Array, from: number, count: number) =>
        tensor(device, values.subarray(from * C * inner, (from + count) * C * inner), [
          ...[count, C],
          ...spatial,
        ]);
      const step = async (
        { norm }: typeof local,
        rows: readonly [from: number, count: number],
        effects: LayerEffects<A>,
      ) => {
        const { output, layer, saved } = await applyLayer(norm, part(x, ...rows), effects);
        const { gradInput, gradWeight, gradBias } = await backwardLayer(
          saved,
          part(dy, ...rows),
          effects,
        );
        const { runningMean, runningVar } = await stateToHost(device, layer.state);
        assert(gradWeight && gradBias && runningMean && runningVar);
        return {
          rows: [await toArray(device, output), await toArray(device, gradInput)],
          sums: [await device.download(gradWeight), await device.download(gradBias)],
          state: [runningMean, runningVar],
        };
      };
      const one = await step(local, [0, 6], { device });
      const converted = convertSyncBatchNorm(local);
      const ranks = await runRanks(4, (world) => {
        const rows = [starts[world.rank], counts[world.rank]] as const;
        return step(converted, rows, { device, groups: { world } });
      });
      // PyTorch's tolerance; gates next to 0 are on one side for this seed.
      const close = (is: ArrayLike<number>, wanted: ArrayLike<number>, what: string) =>
        assertClose(is, wanted, { absolute: 1e-5, relative: 1.3e-6 }, `${kind}, ${what}`);
      for (const [i, what] of ["output", "gradInput"].entries()) {
        close(ranks.flatMap(({ rows }) => [...rows[i]]), one.rows[i], what);
      }
      for (const [i, what] of ["gradWeight", "gradBias"].entries()) {
        const total = one.sums[i].map((_, c) => ranks.reduce((t, { sums }) => t + sums[i][c], 0));
        close(total, one.sums[i], what);
      }
      for (const [i, what] of ["running mean", "running variance"].entries()) {
        close(same(ranks.map(({ state }) => state[i])), one.state[i], what);
      }
    }
  });

  test("a lazy layer takes its channels from the first batch", async (device) => {
    const options = { eps: 0.5, momentum: 0.25, bias: false, activation: "relu" } as const;
    const lazy = structuredClone({ ...initLazyLayer("batchNorm1d", options), name: "stem" });
    const input = batchOf(device, 3);
    const { output, layer, saved } = await applyLayer(lazy, input, { device });
    assert.deepEqual([layer.name, layer.activation, "lazy" in layer], ["stem", "relu", false]);
    const eager = initLayer(device, "batchNorm1d", 3, options);
    const expected = await applyLayer(eager, input, { device });
    assert.deepEqual(await toArray(device, output), await toArray(device, expected.output));
    assert.deepEqual(
      await stateToHost(device, layer.state),
      await stateToHost(device, expected.layer.state),
    );
    assert.equal(layer.state.numBatchesTracked, 1);
    await backwardLayer(saved, input, { device });
    const { name } = await failureOf(
      applyLayer(layer, tensor(device, [1, 2], [1, 2]), { device }),
    );
    assert.equal(name, "TypeError", "its channels are settled now");
  });

  test("a lazy layer becomes the same layer on every rank, an empty one too", async (device) => {
    const lazy = initLazyLayer("batchNorm", { processGroup: "world" });
    const states = await runRanks(3, async (world) => {
      const values = world.rank === 1 ? [] : [1, 2, world.rank];
      const input = tensor(device, values, [values.length / 3, 3]);
      const { layer } = await applyLayer(lazy, input, { device, groups: { world } });
      assert.equal(layer.processGroup, "world");
      return await stateToHost(device, layer.state);
    });
    assert.equal(same(states).numBatchesTracked, 1);
  });

  test("a lazy layer's failures leave nothing on the device", async (device) => {
    const counted = census(device);
    const effects = { device: counted.device };
    const one = tensor(device, [1, 2, 3], [1, 3]);
    const lazy = initLazyLayer("batchNorm1d");
    const synchronised = { ...lazy, processGroup: "world" };
    const nothing = null as unknown as Tensor<A>;
    const alone = { ...effects, groups: { world: { ...untouched, worldSize: 1 } } };
    for (const layer of [lazy, synchronised]) {
      const wrongLazy = { ...layer, lazy: { eps: -1 } };
      const wrong: [typeof layer, Tensor<A>, RegExp][] = [
        [wrongLazy, one, /^Cannot apply the layer as eps must be finite and >= 0/],
        [layer, one, /^Cannot normalize the batch as it needs more than 1 value per channel/],
        [
          layer,
          nothing,
          /^Cannot apply the layer as the input must be a tensor: current value is null$/,
        ],
      ];
      for (const [given, input, text] of wrong) {
        assert.match((await failureOf(applyLayer(given, input, alone))).message, text);
        assert.equal(counted.alive(), 0);
      }
    }
    const failures = await runRanks(2, (world) => {
      const input = tensor(device, [1, 2, 3], world.rank === 0 ? [1, 3] : [1, 3, 1, 1]);
      const groups = { world };
      return failureOnAll(world, applyLayer(synchronised, input, { ...effects, groups }));
    });
    assert.deepEqual([same(failures).code, failures[0].ranks], ["rankFailed", [1]]);
    assert.match(failures[0].message, /expected 2D or 3D input \(got 4D input\)/);
    assert.equal(counted.alive(), 0);
  });

  test("a lazy layer must be given its channels before evaluation", (device) => {
    const lazy = initLazyLayer("batchNorm1d", { trackRunningStats: false });
    const asLayer = lazy as unknown as BatchNormLayer<A>;
    const input = batchOf(device, 2);
    assert.throws(
      () => inferLayer(asLayer, input, { device }),
      /lazy batchNorm1d must have seen its channels first, by applyLayer or materializeLayer/,
    );
    assert.throws(() => freeze(asLayer), /Cannot freeze the layer as a lazy/);
    const layer = materializeLayer(device, lazy, 3);
    assert.equal(layer.state.runningMean, null);
    assert.equal(inferLayer(layer, input, { device }).shape[1], 3);
    assert.equal(materializeLayer(device, layer, 3), layer, "it has its state already");
    assert.throws(() => materializeLayer(device, lazy, 0), /numFeatures must be an integer >= 1/);
    assert.throws(
      () => materializeLayer(device, layer, 5),
      /must have none, or one of as many channels: current values are 3 and 5/,
    );
  });

  test("what is wrong with one rank's layer or batch reaches all, and changes nothing", async (device) => {
    const layer = initLayer(device, "batchNorm2d", 3, { processGroup: "world" });
    const wrong: [unknown, Tensor<A>, RegExp][] = [
      [layer, batchOf(device, 3), /expected 4D input \(got 3D input\)/],
      [layer, tensor(device, [1, 2], [1, 2, 1, 1]), /channels must equal numFeatures/],
      [{ ...layer, state: { ...layer.state, eps: -1 } }, batchOf(device, 4), /eps must be/],
      [{ ...layer, kind: "batchNorm4d" }, batchOf(device, 4), /kind must be "batchNorm1d", /],
      [{ kind: "batchNorm2d", processGroup: "world" }, batchOf(device, 4), /holds kind, process/],
      [{ ...layer, state: undefined }, batchOf(device, 4), /state must be a record/],
      [layer, null as unknown as Tensor<A>, /input/],
      [{ ...layer, frozen: null }, batchOf(device, 4), /frozen must be "statistics", "all" or/],
      [{ ...layer, kind: Symbol("kind") }, batchOf(device, 4), /kind must be "batchNorm1d", /],
    ];
    const before = await stateToHost(device, layer.state);
    for (const [other, input, text] of wrong) {
      const failures = await runRanks(3, (world) => {
        const call = world.rank === 1
          ? applyLayer(other as BatchNormLayer<A>, input, { device, groups: { world } })
          : applyLayer(layer, batchOf(device, 4), { device, groups: { world } });
        return failureOnAll(world, call);
      });
      const { code, ranks, message } = same(failures);
      assert.deepEqual([code, ranks], ["rankFailed", [1]], message);
      assert.match(message, text);
    }
    assert.deepEqual(await stateToHost(device, layer.state), before);
  });

  test("ranks that apply layers of different kinds or groups do not mix", async (device) => {
    const failures = await runRanks(2, (world) => {
      const kind = world.rank === 0 ? "batchNorm1d" : "batchNorm";
      const layer = initLayer(device, kind, 3, { processGroup: "world" });
      return failureOnAll(
        world,
        applyLayer(layer, batchOf(device, 2), { device, groups: { world } }),
      );
    });
    assert.equal(same(failures).code, "disagreement");
  });

  test("a name that effects.groups lacks is an error that lists the names", async (device) => {
    const layer = initLayer(device, "batchNorm1d", 3, { processGroup: "tower" });
    const input = batchOf(device, 2);
    const groups = { world: untouched, other: untouched };
    const wrong: [LayerEffects<A>, RegExp][] = [
      [{ device }, /effects\.groups must hold the group "tower": current names are none/],
      [{ device, groups }, /group "tower": current names are "world", "other"/],
      [
        { device, groups: { tower: null as unknown as ReduceGroup } },
        /effects\.groups\["tower"\] must be { worldSize, allReduce }: current value holds nothing/,
      ],
    ];
    for (const [effects, text] of wrong) {
      const { name, message } = await failureOf(applyLayer(layer, input, effects));
      assert.equal(name, "TypeError");
      assert.match(message, text);
    }
    const inherited = { ...layer, processGroup: "constructor" };
    assert.match(
      (await failureOf(applyLayer(inherited, input, { device, groups: {} }))).message,
      /must hold the group "constructor"/,
    );
    await runRanks(2, async (world) => {
      const { saved } = await applyLayer(layer, input, { device, groups: { tower: world } });
      assert.match(
        (await failureOf(backwardLayer(saved, input, { device, groups: { world } }))).message,
        /Cannot compute the layer's gradients as effects\.groups must hold the group "tower"/,
      );
    });
  });

  test("the group of backward must have as many ranks as forward's, under the same name", async (device) => {
    const layer = initLayer(device, "batchNorm1d", 3, { processGroup: "half" });
    await runRanks(4, async (world) => {
      const half = await world.split(world.rank < 2 ? 0 : 1);
      const input = batchOf(device, 2, world.rank);
      const { saved } = await applyLayer(layer, input, { device, groups: { half } });
      const other = backwardLayer(saved, input, { device, groups: { half: world } });
      const { code, message } = await failureOnAll(world, other);
      assert.equal(code, "rankFailed");
      assert.match(
        message,
        /the group must be that of forward: current numbers of ranks are 4 and/,
      );
    });
    const failures = await runRanks(2, async (world) => {
      const own = { ...layer, processGroup: world.rank === 0 ? "half" : "pair" };
      const input = batchOf(device, 2);
      const effects = { device, groups: { half: world, pair: world } };
      const same = { ...own, processGroup: "half" };
      const { saved } = await applyLayer(same, input, effects);
      const named = { ...saved, processGroup: own.processGroup } as typeof saved;
      return failureOnAll(world, backwardLayer(named, input, effects));
    });
    assert.equal(same(failures).code, "disagreement");
    await runRanks(2, async (world) => {
      const input = batchOf(device, 2);
      const { saved } = await syncBatchNormForward(layer.state, input, {
        device,
        group: world,
      });
      const call = backwardLayer(saved as never, input, { device, groups: { half: world } });
      assert.match((await failureOf(call)).message, /must be that of applyLayer: .* "group"/);
    });
    const saved = { kind: "other" } as never;
    assert.match(
      (await failureOf(backwardLayer(saved, batchOf(device, 2), { device }))).message,
      /saved must be that of applyLayer: current kind is "other"/,
    );
  });

  test("a layer's records are frozen, keep fields of one's own, and stay where nothing changed", async (device) => {
    const named = { ...initLayer(device, "batchNorm1d", 3), name: "stem" } as const;
    const input = batchOf(device, 2);
    const { layer, saved, ...rest } = await applyLayer(named, input, { device });
    const name: "stem" = layer.name;
    assert.equal(name, "stem");
    const lazy = initLazyLayer("batchNorm");
    const fixed = freeze(named, { affine: true });
    const forwards = await runRanks(
      2,
      (world) =>
        applyLayer({ ...named, processGroup: "world" }, input, { device, groups: { world } }),
    );
    const local = await applyLayer(named, input, { device });
    const frozen = await applyLayer(fixed, input, { device });
    assert(frozen.saved.kind === "frozen");
    const values = [
      ...[layer, saved, rest.output, lazy, lazy.lazy, fixed, unfreeze(fixed)],
      ...[initLayer(device, "batchNorm", 1), frozen.saved, frozen.saved.options],
      ...[...forwards, local, frozen].flatMap((
        forward,
      ) => [forward, forward.saved, forward.layer]),
      await backwardLayer(frozen.saved, input, { device }),
    ];
    for (const [i, value] of values.entries()) assert(Object.isFrozen(value), `${i}`);
    const still = { updateRunningStats: false };
    assert.equal((await applyLayer(named, input, { device }, still)).layer, named);
    const empty = tensor(device, [], [0, 3]);
    assert.equal((await applyLayer(named, empty, { device })).layer, named);
    await runRanks(2, async (world) => {
      const shared = { ...named, processGroup: "world" };
      const effects = { device, groups: { world } };
      assert.equal((await applyLayer(shared, input, effects, still)).layer, shared);
      const { layer: next } = await applyLayer(shared, input, effects);
      assert.deepEqual([next.name, Object.isFrozen(next)], ["stem", true]);
    });
  });

  test("a layer's activation is applied in training and evaluation", async (device) => {
    const input = batchOf(device, 2);
    const options: LayerOptions = { activation: "relu" };
    const [plain, gated] = [{}, options].map((o) => initLayer(device, "batchNorm1d", 3, o));
    const relu = (values: Float32Array) => values.map((value) => Math.max(value, 0));
    const bare = await applyLayer(plain, input, { device });
    const { output, saved } = await applyLayer(gated, input, { device });
    assert.deepEqual(await toArray(device, output), relu(await toArray(device, bare.output)));
    assert(saved.kind === "local" && saved.output !== null, "backward goes through it");
    assert.deepEqual(
      await toArray(device, inferLayer(gated, input, { device })),
      relu(await toArray(device, inferLayer(plain, input, { device }))),
    );
  });

  test("a frozen layer normalizes with its running statistics and learns weight and bias", async (device) => {
    const learning = trained(device);
    const fixed = freeze(learning);
    const [input, gradOutput] = [batchOf(device, 2, 5), batchOf(device, 2, 6)];
    const options = { residual: batchOf(device, 2, 8), activation: "relu" } as const;
    // Synchronised as it is, it needs no group.
    const { output, layer, saved } = await applyLayer(fixed, input, { device }, options);
    assert.equal(layer, fixed);
    assert.equal(fixed.state, learning.state);
    const { state } = learning;
    assert.deepEqual(
      await toArray(device, output),
      await toArray(device, batchNormInfer(state, input, { device }, options)),
    );
    const expected = batchNormInferBackward(state, input, gradOutput, { device }, options);
    await assertSameGradients(
      device,
      await backwardLayer(saved, gradOutput, { device }),
      expected,
    );
    await runRanks(
      2,
      (world) => applyLayer(fixed, batchOf(device, 2), { device, groups: { world } }),
    );
    assert.deepEqual(unfreeze(fixed), learning);
    assert.equal(unfreeze(learning), learning);
    assert.equal(freeze(fixed), fixed);
    const all = freeze(fixed, { affine: true });
    assert.equal(freeze(all), all, "stays as fixed as it was");
  });

  test("a frozen layer's own activation is applied, there and back", async (device) => {
    const layer = initLayer(device, "batchNorm1d", 3, { activation: "relu" });
    const input = batchOf(device, 2);
    const { output, saved } = await applyLayer(freeze(layer), input, { device });
    const options = { activation: "relu" } as const;
    assert.deepEqual(
      await toArray(device, output),
      await toArray(device, batchNormInfer(layer.state, input, { device }, options)),
    );
    await assertSameGradients(
      device,
      await backwardLayer(saved, input, { device }),
      batchNormInferBackward(layer.state, input, input, { device }, options),
    );
  });

  test("a frozen layer must have running statistics and a state, however it came about", async (device) => {
    const without = initLayer(device, "batchNorm1d", 3, {
      ...{ trackRunningStats: false, processGroup: "world" },
    });
    const text = /as a frozen layer must have running statistics to normalize with/;
    assert.throws(() => freeze(without), text);
    const fixed = { ...without, frozen: "statistics" } as const;
    assert.throws(() => checkModel({ fixed }, { device }), text);
    assert.throws(() => inferLayer(fixed, batchOf(device, 2), { device }), text);
    assert.match(
      (await failureOf(applyLayer(fixed, batchOf(device, 2), { device }))).message,
      text,
    );
    const bare = initLazyLayer("batchNorm1d", { trackRunningStats: false });
    assert.throws(() => checkModel({ ...bare, frozen: "all" }, { device }), text);
    const lazy = { ...initLazyLayer("batchNorm1d"), frozen: "all" } as const;
    assert.match(
      (await failureOf(applyLayer(lazy, batchOf(device, 2), { device }))).message,
      /^Cannot apply the layer as a lazy batchNorm1d must have seen its channels first/,
    );
  });

  test("a layer that is frozen with weight and bias gives no gradients of them, and leaks none", async (device) => {
    const fixed = freeze(trained(device), { affine: true });
    const [input, gradOutput] = [batchOf(device, 2, 5), batchOf(device, 2, 6)];
    const { saved } = await applyLayer(fixed, input, { device });
    const counted = census(device);
    const { gradInput, ...others } = await backwardLayer(saved, gradOutput, {
      device: counted.device,
    });
    assert.deepEqual(others, { gradWeight: null, gradBias: null });
    assert.equal(counted.alive(), 1);
    const expected = batchNormInferBackward(fixed.state, input, gradOutput, { device });
    assert.deepEqual(
      await toArray(device, gradInput),
      await toArray(device, expected.gradInput),
    );
  });

  test("inferLayer() is batchNormInfer(), on one rank alone", async (device) => {
    const layer = trained(device);
    const input = batchOf(device, 2, 9);
    assert.deepEqual(
      await toArray(device, inferLayer(layer, input, { device })),
      await toArray(device, batchNormInfer(layer.state, input, { device })),
    );
    const options = { residual: batchOf(device, 2, 4), activation: "relu" } as const;
    assert.deepEqual(
      await toArray(device, inferLayer(layer, input, { device }, options)),
      await toArray(device, batchNormInfer(layer.state, input, { device }, options)),
    );
    assert.throws(
      () => inferLayer(null as never, input, { device }),
      /^TypeError: Cannot evaluate the layer as a layer must be { kind, .*: current value is null$/,
    );
  });

  test("models of layers go through data parallelism and ownership like any tree", async (device) => {
    const models = await runRanks(2, async (world) => {
      const options = { processGroup: "world", activation: "relu" } as const;
      const own = initLayer(device, "batchNorm1d", 2, {
        ...{ weightInit: "uniform", random: () => world.rank / 2 },
        ...options,
      });
      const model = { layers: [own, freeze(own)], lazy: initLazyLayer("batchNorm") };
      const effects = { device, group: world };
      const { layers } = await broadcastState({ layers: model.layers }, effects, { root: 1 });
      assert.deepEqual([layers[0].kind, layers[1].frozen], ["batchNorm1d", "statistics"]);
      const input = tensor(device, [1, 2, 3, world.rank], [2, 2]);
      const groups = { world };
      const { saved } = await applyLayer(layers[0], input, { device, groups });
      const { gradWeight, gradBias } = await backwardLayer(saved, input, { device, groups });
      const total = await allReduceGradients({ gradWeight, gradBias }, effects);
      assert(device.owns(total.gradWeight));
      return [...(await stateToHost(device, layers[0].state)).weight ?? []];
    });
    assert.deepEqual(same(models), [0.5, 0.5]);
    const counted = census(device);
    const kept = await region(counted.device, async (scope) => {
      const layer = initLayer(scope, "batchNorm1d", 3);
      const { layer: next } = await applyLayer(layer, batchOf(scope, 2), { device: scope });
      return { model: [next] };
    });
    assert.equal(counted.alive(), 4, "a state's vectors");
    release(device, kept, {});
    assert.equal(counted.alive(), 0);
  });

  test("checkModel() names the path of what cannot be run", (device) => {
    const layer = initLayer(device, "batchNorm1d", 3);
    const sync = { ...layer, processGroup: "tower" };
    const groups = { tower: untouched };
    const cycle: Record<string, unknown> = { layer };
    cycle.again = [cycle];
    const [short, freed] = [
      device.upload(Float32Array.of(1, 2)),
      device.upload(new Float32Array(3)),
    ];
    device.free(freed);
    const elsewhere = initLayer(referenceDevice(), "batchNorm1d", 3);
    const wrong: [unknown, ErrorConstructor, RegExp][] = [
      [cycle, TypeError, /must be a tree: current again\.0 is the model itself again, a cycle/],
      [{ a: [layer, { kind: "batchNorm2d" }] }, TypeError, /at a\.1 as a layer must be { kind, /],
      [{ a: { ...layer, processGroup: 3 } }, TypeError, /at a as processGroup must be the name/],
      [{ a: { ...layer, frozen: true } }, TypeError, /at a as frozen must be "statistics", "all"/],
      [{ a: { ...layer, activation: "gelu" } }, TypeError, /at a as activation must be "relu"/],
      [[{ ...layer, state: { ...layer.state, numFeatures: 0 } }], RangeError, /at 0 as numFeat/],
      [
        { b: { ...layer, state: { ...layer.state, bias: short } } },
        TypeError,
        /at b as the length of bias must be numFeatures: current values are 2 and 3/,
      ],
      [
        { b: { ...layer, state: { ...layer.state, runningVar: null } } },
        TypeError,
        /at b as runningMean and runningVar must both be there/,
      ],
      [
        { b: { ...layer, state: { ...layer.state, weight: freed } } },
        TypeError,
        /at b with w.*freed/,
      ],
      [elsewhere, TypeError, /at the model itself with weight: .*another device/],
      [
        { x: { ...sync, processGroup: "half" } },
        TypeError,
        /at x as effects\.groups must hold .*"half": .*"tower"/,
      ],
      [{ ...layer, state: null }, TypeError, /must have lazy, the options of its state/],
    ];
    for (const [model, type, text] of wrong) {
      assert.throws(() => checkModel(model, { device, groups }), (error: Error) => {
        assert(error instanceof type, error.message);
        assert.match(error.message, /^Cannot use the model/);
        assert.match(error.message, text);
        return true;
      });
    }
    assert.throws(
      () => checkModel([sync], { device, groups: { tower: {} as ReduceGroup } }),
      /at 0 as effects\.groups\["tower"\] must be { worldSize, allReduce }/,
    );
    const shared = [
      layer,
      { again: layer, frozen: freeze(sync) },
      initLazyLayer("batchNorm"),
      sync,
    ];
    checkModel({ shared, fields: new Map(), text: "batchNorm1d", none: null }, { device, groups });
    checkModel({ fixed: freeze({ ...sync, processGroup: "none" }) }, { device });
    const lazy = { ...initLazyLayer("batchNorm1d"), lazy: { momentum: 2 } };
    assert.throws(() => checkModel({ a: [lazy] }, { device }), /at a\.0 as momentum must be in/);
  });

  test("a layer may be written to while its call waits for the others", async (device) => {
    await runRanks(2, async (world) => {
      const layer = {
        ...initLayer(device, "batchNorm1d", 3, { processGroup: "world" }),
        name: "a",
      };
      const pending = applyLayer(layer, batchOf(device, 2), { device, groups: { world } });
      Object.assign(layer, { kind: "nonsense", processGroup: "other", name: "b", state: null });
      const { layer: next, saved } = await pending;
      assert.deepEqual([next.kind, next.processGroup, next.name], ["batchNorm1d", "world", "a"]);
      assert.equal(saved.kind === "group" && saved.processGroup, "world");
      const gated = {
        ...initLayer(device, "batchNorm1d", 3, { processGroup: "world" }),
        rate: NaN,
      };
      const still = { updateRunningStats: false };
      const effects = { device, groups: { world } };
      assert.equal((await applyLayer(gated, batchOf(device, 2), effects, still)).layer, gated);
      const waiting = applyLayer(gated, batchOf(device, 2), effects, still);
      Object.assign(gated, { activation: "relu" });
      const { layer: before } = await waiting;
      assert.deepEqual([before.activation, Object.isFrozen(before)], [undefined, true]);
    });
  });

  test("a signal gives up a synchronised layer's calls", async (device) => {
    const layer = initLayer(device, "batchNorm1d", 3, { processGroup: "world" });
    const input = batchOf(device, 2);
    const signal = AbortSignal.abort(new Error("user left"));
    const forward = await runRanks(
      2,
      (world) => failureOf(applyLayer(layer, input, { device, groups: { world } }, { signal })),
    );
    assert.equal(same(forward).code, "cancelled");
    const backward = await runRanks(2, async (world) => {
      const effects = { device, groups: { world } };
      const { saved } = await applyLayer(layer, input, effects);
      return await failureOf(backwardLayer(saved, input, effects, { signal }));
    });
    assert.equal(same(backward).code, "cancelled");
  });

  test("a batch of any rank from 2 on goes through a layer of any rank", async (device) => {
    const layer = initLayer(device, "batchNorm", 3);
    const input = tensor(device, normalArray(12, 3), [4, 3, 1, 1, 1, 1, 1]);
    const { output } = await applyLayer(layer, input, { device });
    assert.equal(output.shape.length, 7);
    const flat = { ...input, shape: 12 as unknown as number[] };
    assert.match(
      (await failureOf(applyLayer(layer, flat, { device }))).message,
      /must have a shape \(N, C, \.\.\.spatial\) of rank >= 2/,
    );
  });

  test("layers say what effects they need", async (device) => {
    const layer = initLayer(device, "batchNorm1d", 3);
    const input = batchOf(device, 2);
    const { saved } = await applyLayer(layer, input, { device });
    const none = {} as { device: Device<A> };
    const text = /as effects must be { device }, with group or groups where ranks share/;
    assert.match((await failureOf(applyLayer(layer, input, none))).message, text);
    assert.match((await failureOf(backwardLayer(saved, input, none))).message, text);
    assert.throws(() => inferLayer(layer, input, none), text);
    assert.throws(() => checkModel(layer, none), text);
    const unnamed = { ...layer, processGroup: "" };
    assert.match(
      (await failureOf(applyLayer(unnamed, input, { device, groups: {} }))).message,
      /processGroup must be the name of a group, or null for none: current value is ""/,
    );
  });

  test("layers refuse options that are none", (device) => {
    const wrong: [() => unknown, RegExp][] = [
      [() => initLayer(device, "batchNorm4d" as LayerKind, 3), /kind must be .*"batchNorm4d"/],
      [() => initLayer(device, "toString" as LayerKind, 3), /kind must be .*"toString"/],
      [() => initLazyLayer("batchNorm", { processGroup: "" }), /processGroup must be .*""/],
      [() => initLazyLayer("batchNorm", { activation: "gelu" as "relu" }), /activation.*"gelu"/],
      [() => unfreeze({} as BatchNormLayer<A>), /holds nothing/],
      [
        () => freeze(7 as never),
        /Cannot freeze the layer as it must be or hold a layer .*: current value is 7/,
      ],
      [() => initLayer(device, Object.create(null), 3), /kind must be .*: .* of class null/],
      [
        () => initLazyLayer("batchNorm", { weightInit: "uniform" } as never),
        /weight of a lazy layer must begin as 1, .*: current options hold weightInit/,
      ],
      [() => materializeLayer(device, 7 as unknown as LazyBatchNormLayer, 3), /current value is 7/],
    ];
    for (const [call, text] of wrong) {
      assert.throws(call, (error: Error) => error instanceof TypeError && text.test(error.message));
    }
    assert.throws(() => initLayer(device, "batchNorm", 0), RangeError);
    assert.throws(() => initLazyLayer("batchNorm", { eps: -1 }), /Cannot make the layer as eps/);
    for (const lazy of [3, null, [], undefined]) {
      const layer = { ...initLazyLayer("batchNorm"), lazy } as unknown as LazyBatchNormLayer;
      assert.throws(() => materializeLayer(device, layer, 3), /must have lazy, the options of its/);
    }
  });
}

/** A synchronised layer that has seen a batch. */
function trained<A>(device: Device<A>): BatchNormLayer<A> {
  const layer = initLayer(device, "batchNorm1d", 3, { processGroup: "world" });
  const { state } = batchNormForward(layer.state, batchOf(device, 2), { device });
  return { ...layer, state };
}

async function assertSameGradients<A>(
  device: Device<A>,
  actual: Awaited<ReturnType<typeof backwardLayer<A>>>,
  expected: typeof actual,
): Promise<void> {
  assert.deepEqual(Object.keys(actual).sort(), Object.keys(expected).sort());
  assert.deepEqual(
    await toArray(device, actual.gradInput),
    await toArray(device, expected.gradInput),
  );
  for (const name of ["gradWeight", "gradBias"] as const) {
    const [is, wanted] = [actual[name], expected[name]];
    assert(is !== null && wanted !== null);
    assert.deepEqual(await device.download(is), await device.download(wanted));
  }
  if (expected.gradResidual === undefined) return;
  assert(actual.gradResidual);
  assert.deepEqual(
    await toArray(device, actual.gradResidual),
    await toArray(device, expected.gradResidual),
  );
}
