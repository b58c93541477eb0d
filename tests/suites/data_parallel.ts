/** Data parallelism on a device: gradients of all ranks, and replicas that stay equal. */

import assert from "node:assert/strict";
import {
  allReduceGradients,
  assertReplicated,
  batch,
  type BatchNormState,
  broadcastState,
  type Device,
  initBatchNorm,
  joinUneven,
  lossScale,
  type ProcessGroup,
  referenceDevice,
  region,
  runRanks,
  stateFromHost,
  stateToHost,
  sum,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import {
  bitsOf,
  checkTraining,
  failureOf,
  failureOnAll,
  ODD_BITS,
  ofBits,
  same,
  train,
  TRAINING,
} from "../data_parallel.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { normalArray } from "../random.ts";
import { census, record } from "../recording.ts";

/** Gradients of a rank: vectors of 3 and 5, a tensor of 4, and nothing in one place. */
function gradients<A>(device: Device<A>, seed: number) {
  const [weight, bias] = [
    device.upload(normalArray(3, seed)),
    device.upload(normalArray(5, seed + 1)),
  ];
  const kernel = tensor(device, normalArray(4, seed + 2), [2, 2]);
  return { layers: [{ weight, bias }, { weight: null }] as const, kernel };
}

async function valuesOf<A>(
  device: Device<A>,
  { layers: [{ weight, bias }], kernel }: ReturnType<typeof gradients<A>>,
): Promise<Float32Array[]> {
  return [
    await device.download(weight),
    await device.download(bias),
    await toArray(device, kernel),
  ];
}

const flipped = (values: Float32Array<ArrayBuffer>, at: number, bit: number) => {
  const words = new Uint32Array(values.slice().buffer);
  words[at] ^= 2 ** bit;
  return new Float32Array(words.buffer);
};

function oddState(): BatchNormState<Float32Array<ArrayBuffer>> {
  return {
    ...{ numFeatures: 6, eps: 1e-3, momentum: 0.25, numBatchesTracked: 7 },
    weight: ofBits(...ODD_BITS),
    bias: null,
    runningMean: ofBits(...ODD_BITS.toReversed()),
    runningVar: Float32Array.of(1, 2, 3, 4, 5, 6),
  };
}

/** Registers the tests of data parallelism for a device. */
export function dataParallelSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);
  const launches = (calls: readonly string[]) =>
    calls.filter((call) => !["describe", "owns", "free"].includes(call)).join(" ");

  const readback = ({ downloadAll }: Device<A>) =>
    downloadAll ? "downloadAll" : "batch download download download end";

  test("averaged gradients of uneven and used-up ranks train as one process", async (device) => {
    await checkTraining(kit.ulps, await runRanks(3, (group) => train(device, TRAINING, group)));
  });

  test("allReduceGradients() reduces a whole tree, and aliases nothing", async (device) => {
    const trees = [0, 1, 2].map((rank) => gradients(device, 10 * rank));
    const values = await Promise.all(trees.map((tree) => valuesOf(device, tree)));
    const expected = (divisor: number) =>
      values[0].map((_, at) =>
        values[0][at].map((_, i) => values.reduce((t, own) => t + own[at][i], 0) / divisor)
      );
    for (const [average, divisor] of [[true, 3], [false, 1]] as const) {
      const results = await runRanks(3, async (group) => {
        const tree = trees[group.rank];
        const reduced = await allReduceGradients(tree, { device, group }, { average });
        assert(Object.isFrozen(reduced) && Object.isFrozen(reduced.layers));
        assert.equal(reduced.layers[1].weight, null);
        assert.deepEqual(reduced.kernel.shape, [2, 2]);
        assert.notEqual(reduced.kernel.data, tree.kernel.data);
        assert.notEqual(reduced.layers[0].weight, tree.layers[0].weight);
        return await valuesOf(device, reduced);
      });
      assert.deepEqual(same(results), expected(divisor), "rounded once");
    }
    assert.deepEqual(await Promise.all(trees.map((tree) => valuesOf(device, tree))), values);
  });

  test("allReduceGradients() goes by keys, not by the order that they were written in", async (device) => {
    const totals = await runRanks(2, async (group) => {
      const [a, b] = [Float32Array.of(1), Float32Array.of(10, 20)].map((v) => device.upload(v));
      const tree = group.rank === 0 ? { a, b } : { b, a };
      const { a: total, b: other } = await allReduceGradients(tree, { device, group }, {
        average: false,
      });
      return [...await device.download(total), ...await device.download(other)];
    });
    assert.deepEqual(same(totals), [2, 20, 40]);
  });

  test("allReduceGradients() keeps the storage of half precision", async (device) => {
    if (!device.info.float16) return;
    const results = await runRanks(2, async (group) => {
      const options = { dtype: "float16", format: "channelsLast" } as const;
      const kernel = tensor(device, [1, 2 + group.rank, 60000], [1, 3], options);
      const mean = await allReduceGradients(kernel, { device, group });
      assert.deepEqual([mean.dtype, mean.format], ["float16", "channelsLast"]);
      assert.equal(device.describe(mean.data).dtype, "float16");
      return [...await toArray(device, mean)];
    });
    // The sum of the last ones has no half precision, their mean has.
    assert.deepEqual(same(results), [1, 2.5, 60000]);
  });

  test("any number of buckets gives the same bits", async (device) => {
    const reduce = (buckets: number) =>
      runRanks(3, async (group) => {
        const tree = gradients(device, 10 * group.rank);
        return await valuesOf(
          device,
          await allReduceGradients(tree, { device, group }, { buckets }),
        );
      });
    const one = same(await reduce(1));
    // 12 values: some collectives of the last have none.
    for (const buckets of [2, 5, 12, 20]) assert.deepEqual(same(await reduce(buckets)), one);
  });

  test("a tree of no arrays takes part too", async (device) => {
    const results = await runRanks(
      2,
      (group) => allReduceGradients({ norm: null, more: [] }, { device, group }, { buckets: 2 }),
    );
    assert.deepEqual(same(results), { norm: null, more: [] });
  });

  test("all collectives are in line before the first await, arguments may change then", async (device) => {
    const results = await runRanks(2, async (group) => {
      const tree = { a: device.upload(Float32Array.of(1, 2, group.rank)), b: [] as A[] };
      const effects = { device, group };
      const pending = allReduceGradients(tree, effects, { buckets: 2, average: false });
      const [after] = await group.allReduce(Float64Array.of(5), sum, { label: "after" });
      tree.b.push(tree.a);
      const { a, b } = await pending;
      return [after, b.length, ...await device.download(a)];
    });
    assert.deepEqual(same(results), [10, 0, 2, 4, 1]);
  });

  test("gradients cost one readback, one collective, one upload", async (device) => {
    await runRanks(2, async (group) => {
      const watched = record(device);
      let calls = 0;
      const counting = {
        worldSize: 2,
        allReduce: (...call: Parameters<ProcessGroup["allReduce"]>) => {
          calls++;
          return group.allReduce(...call);
        },
      };
      const tree = gradients(device, group.rank);
      const effects = { device: watched.device, group: counting };
      await allReduceGradients(tree, effects);
      assert.equal(calls, 1);
      assert.equal(
        launches(watched.calls),
        `${readback(device)} batch upload upload upload end`,
      );
    });
  });

  test("every function calls its collective before its first await", (device) => {
    const labels: string[] = [];
    const note = (options?: { readonly label?: string }) => {
      labels.push(`${options?.label}`.replace(/ of .*| \d.*/, ""));
      return new Promise<never>(() => {});
    };
    const group = {
      ...{ rank: 0, worldSize: 2 },
      allReduce: (...[, , options]: Parameters<ProcessGroup["allReduce"]>) => note(options),
      allGather: (...[, options]: Parameters<ProcessGroup["allGather"]>) => note(options),
      broadcast: (...[, , options]: Parameters<ProcessGroup["broadcast"]>) => note(options),
    };
    const effects = { device, group };
    const state = initBatchNorm(device, 3);
    allReduceGradients(gradients(device, 1), effects, { average: false, buckets: 2 });
    broadcastState(state, effects);
    assertReplicated(state, effects);
    lossScale(1, group);
    joinUneven([1], group).next();
    assert.deepEqual(labels, [
      ...["allReduceGradients sum", "allReduceGradients sum", "broadcastState"],
      ...["assertReplicated", "lossScale", "joinUneven stop"],
    ]);
  });

  test("what is no group is refused by data parallelism", async (device) => {
    const effects = { device, group: { worldSize: 2 } as ProcessGroup };
    const { group } = effects;
    const calls: [() => Promise<unknown>, RegExp][] = [
      [() => allReduceGradients({}, effects), /effects\.group must be { worldSize, allReduce }/],
      [() => broadcastState({}, effects), /effects\.group must be { worldSize, broadcast }/],
      [() => assertReplicated({}, effects), /effects\.group must be { worldSize, allGather }/],
      [() => lossScale(1, group), /scale the loss as the group must be { worldSize, allReduce }/],
      [() => joinUneven([], group).next(), /the group must be { worldSize, allGather }/],
      [() => assertReplicated({}, {} as never), /effects must be { device }/],
    ];
    for (const [call, message] of calls) {
      await assert.rejects(
        call,
        (error) => error instanceof TypeError && message.test(error.message),
      );
    }
  });

  test("a world of one neither communicates nor reads back", async (device) => {
    const watched = record(device);
    const refuse = () => Promise.reject(new Error("communicated"));
    const group = {
      ...{ rank: 0, worldSize: 1, allReduce: refuse, allGather: refuse, broadcast: refuse },
    };
    const effects = { device: watched.device, group };
    const tree = { ...gradients(device, 1), none: tensor(device, [], [0, 3]) };
    const state = initBatchNorm(device, 3);
    watched.calls.length = 0;
    const copy = await allReduceGradients(tree, effects);
    assert.equal(await broadcastState(state, effects), state);
    await assertReplicated(state, effects);
    assert.equal(
      launches(watched.calls),
      "batch upload addScaled upload addScaled upload addScaled upload addScaled end",
    );
    assert.deepEqual(await valuesOf(device, copy), await valuesOf(device, tree));
    assert.deepEqual(copy.none.shape, [0, 3]);
    assert.notEqual(copy.kernel.data, tree.kernel.data);
    assert.deepEqual([await lossScale(3, group), await lossScale(0, group)], [1, 0]);
    const seen = [];
    for await (const step of joinUneven("ab", group)) seen.push(step);
    assert.deepEqual(seen.map(({ batch, active }) => [batch, active]), [["a", 1], ["b", 1]]);
    await assert.rejects(lossScale(0.5, group), RangeError);
    await assert.rejects(broadcastState(state, effects, { root: 1 }), RangeError);
    await assert.rejects(allReduceGradients({ a: 1 }, effects), TypeError);
    await assert.rejects(assertReplicated({ a: () => {} }, effects), TypeError);
  });

  test("nothing is left on the device but results", async (device) => {
    const counted = census(device);
    await runRanks(2, async (group) => {
      const effects = { device: counted.device, group };
      const tree = gradients(device, 1);
      const before = counted.alive();
      await allReduceGradients({ tree: gradients(device, 1) }, effects);
      await failureOf(allReduceGradients(group.rank === 0 ? tree : {}, effects, { buckets: 3 }));
      await broadcastState(initBatchNorm(device, 3), effects);
      await assertReplicated(tree, effects);
      return before;
    });
    // Three gradients on each rank, four vectors on the one that is not the root.
    assert.equal(counted.alive(), 2 * 3 + 4);
  });

  const wrong: Record<string, readonly [(device: Device<A>) => unknown, RegExp]> = {
    "a cycle": [() => {
      const tree: { deep: unknown[] } = { deep: [] };
      tree.deep.push(tree);
      return tree;
    }, /as a tree must be a tree: current deep\.0 is the tree itself again, a cycle/],
    "a number": [() => ({ layers: [{ rate: 0.1 }] }), /as layers\.0\.rate must be .* is 0\.1/],
    "something undefined": [
      () => ({ "grad-input": undefined }),
      /as grad-input must be.*undef/,
    ],
    "a function": [() => [() => 1], /as 0 must be .*: current value is a function/],
    "a class": [(device) => ({
      all: new (class Gradients {
        weight = device.upload(Float32Array.of(1));
      })(),
    }), /as all must be .*: current value is of class Gradients/],
    "an array of another device": [
      () => ({ weight: referenceDevice().upload(Float32Array.of(1)) }),
      /with weight: .*another device/,
    ],
    "a tensor of a wrong shape": [
      (device) => ({ kernel: { ...tensor(device, [1, 2], [1, 2]), shape: [1, 3] } }),
      /the kernel's shape \(1, 3\) needs an array of 3 elements/,
    ],
    "an array that was freed": [(device) => {
      const weight = device.upload(Float32Array.of(1));
      device.free(weight);
      return { layers: [weight] };
    }, /with layers\.0: .*freed/],
  };
  for (const [what, [make, text]] of Object.entries(wrong)) {
    test(`${what} in a tree of gradients is its rank's failure on all`, async (device) => {
      const failures = await runRanks(3, (group) => {
        const tree = group.rank === 1 ? make(device) : gradients(device, 1);
        return failureOnAll(
          group,
          allReduceGradients(tree, { device, group }, { buckets: 2 }),
        );
      });
      const { code, ranks, message } = same(failures);
      assert.deepEqual([code, ranks], ["rankFailed", [1]]);
      assert.match(message, text);
      assert.match(message, /Cannot reduce the gradients/);
    });
  }

  test("an impossible number of buckets is refused", async (device) => {
    for (const buckets of [0, 1.5, NaN, 1001, 1e8]) {
      const call = runRanks(
        2,
        (group) => allReduceGradients(gradients(device, 1), { device, group }, { buckets }),
      );
      await assert.rejects(call, /buckets must be an integer from 1 to 1000: current value is/);
    }
  });

  const structures: Record<string, (device: Device<A>) => unknown> = {
    "another length": (device) => ({ a: device.upload(Float32Array.of(1, 2)) }),
    "another key": (device) => ({ b: device.upload(Float32Array.of(1)) }),
    "null in its place": () => ({ a: null }),
    "another dtype": (device) => ({
      a: device.upload(Float32Array.of(1), device.info.float16 ? "float16" : "float32"),
      ...(!device.info.float16 && { b: null }),
    }),
    "a tensor in its place": (device) => ({ a: tensor(device, [1], [1, 1]) }),
    "one more": (device) => [device.upload(Float32Array.of(1)), null],
  };
  for (const [what, make] of Object.entries(structures)) {
    test(`a tree with ${what} is a disagreement on all`, async (device) => {
      const failures = await runRanks(3, (group) => {
        const tree = group.rank === 1 ? make(device) : { a: device.upload(Float32Array.of(1)) };
        return failureOnAll(group, allReduceGradients(tree, { device, group }, { buckets: 2 }));
      });
      const { code, message } = same(failures);
      assert.equal(code, "disagreement");
      assert.match(message, /ranks 0, 2 .*1 arrays of 1 values, structure [0-9a-f]{16}.*rank 1/);
    });
  }

  test("nothing, an empty list and an empty record are different structures", async (device) => {
    const pairs = [[{ a: null }, { a: [] }], [{ a: null }, { a: {} }], [{ a: null }, {}], [
      [null],
      [],
    ]];
    for (const [here, there] of pairs) {
      const failures = await runRanks(
        2,
        (group) =>
          failureOnAll(
            group,
            allReduceGradients(group.rank === 0 ? here : there, { device, group }),
          ),
      );
      assert.equal(same(failures).code, "disagreement");
    }
  });

  test("a record that stands in two places is reduced in each", async (device) => {
    const results = await runRanks(2, async (group) => {
      const shared = { a: device.upload(Float32Array.of(group.rank)) };
      const [one, two] = await allReduceGradients([shared, shared], { device, group });
      assert.notEqual(one.a, two.a);
      return [...await device.download(one.a), ...await device.download(two.a)];
    });
    assert.deepEqual(same(results), [0.5, 0.5]);
  });

  test("a signal gives up every call of data parallelism", async (device) => {
    type Call = (group: ProcessGroup, signal: AbortSignal) => Promise<unknown>;
    const tree = gradients(device, 1);
    const calls: Call[] = [
      (group, signal) => allReduceGradients(tree, { device, group }, { buckets: 2, signal }),
      (group, signal) => broadcastState(tree, { device, group }, { signal }),
      (group, signal) => assertReplicated(tree, { device, group }, { signal }),
      (group, signal) => lossScale(1, group, { signal }),
      (group, signal) => joinUneven([1], group, { signal }).next(),
    ];
    for (const call of calls) {
      const failures = await runRanks(
        2,
        (group) => failureOf(call(group, AbortSignal.abort(new Error("user left")))),
      );
      assert.equal(same(failures).code, "cancelled");
    }
  });

  test("a reduction is not part of a region or a batch that ends before it", async (device) => {
    const late = region(device, (scope) => ({ ...scope }));
    if (late.downloadAll) {
      assert.throws(() => late.downloadAll?.([]), /in the region as its body has ended/);
    }
    await runRanks(2, async (group) => {
      const tree = gradients(device, 1);
      const { call } = batch(device, (d) => ({
        call: allReduceGradients(tree, { device: d, group }),
      }));
      await assert.rejects(call, /Cannot launch in the batch as its body has ended/);
    });
  });

  test("a device that fails is its rank's failure on all", async (device) => {
    const broken: Device<A> = {
      ...device,
      batch: undefined,
      downloadAll: undefined,
      download: () => Promise.reject(new Error("device lost")),
    };
    const calls = [
      (own: Device<A>, group: ProcessGroup) =>
        allReduceGradients(gradients(device, 1), { device: own, group }, { buckets: 3 }),
      (own: Device<A>, group: ProcessGroup) =>
        broadcastState(gradients(device, 1), { device: own, group }, { root: 1 }),
      (own: Device<A>, group: ProcessGroup) =>
        assertReplicated(gradients(device, 1), { device: own, group }),
    ];
    for (const call of calls) {
      const failures = await runRanks(
        3,
        (group) => failureOnAll(group, call(group.rank === 1 ? broken : device, group)),
      );
      const { code, ranks, message } = same(failures);
      assert.deepEqual([code, ranks], ["rankFailed", [1]]);
      assert.match(message, /device lost/);
    }
  });

  test("broadcastState() gives all ranks the root's bits and numbers", async (device) => {
    const results = await runRanks(3, async (group) => {
      const { rank } = group;
      const host = oddState();
      const own = stateFromHost(
        device,
        rank === 1 ? host : {
          ...{ ...host, eps: rank, momentum: 1, numBatchesTracked: 0 },
          weight: new Float32Array(6),
          runningMean: new Float32Array(6),
        },
      );
      const watched = record(device);
      const effects = { device: watched.device, group };
      const state = await broadcastState(own, effects, { root: 1 });
      assert.equal(
        launches(watched.calls),
        rank === 1 ? readback(device) : "batch upload upload upload end",
      );
      assert.equal(state === own, rank === 1, "the root keeps its own");
      assert(Object.isFrozen(state));
      const { weight, bias, runningMean, runningVar, ...rest } = await stateToHost(device, state);
      return {
        rest,
        bias,
        bits: [weight, runningMean, runningVar].map((v) => v && bitsOf(v.slice())),
      };
    });
    const { rest, bias, bits } = same(results);
    assert.deepEqual([rest, bias], [
      { numFeatures: 6, eps: 1e-3, momentum: 0.25, numBatchesTracked: 7 },
      null,
    ]);
    assert.deepEqual(bits.slice(0, 2), [ODD_BITS, ODD_BITS.toReversed()]);
  });

  test("broadcastState() takes whole models, whose make must be equal", async (device) => {
    const model = (group: ProcessGroup, kind: string) => ({
      layers: [{ kind, norm: initBatchNorm(device, 2, { eps: group.rank + 1 }), rate: -0 }],
      kernel: tensor(device, [group.rank, 1], [1, 2]),
    });
    const models = await runRanks(2, async (group) => {
      const given = model(group, "norm");
      const { layers: [{ kind, norm, rate }], kernel } = await broadcastState(given, {
        device,
        group,
      });
      return [kind, norm.eps, Object.is(rate, -0), ...await toArray(device, kernel)];
    });
    assert.deepEqual(same(models), ["norm", 1, true, 0, 1]);
    const failures = await runRanks(2, (group) =>
      failureOnAll(
        group,
        broadcastState(model(group, group.rank === 0 ? "norm" : "none"), { device, group }),
      ));
    assert.equal(same(failures).code, "disagreement");
  });

  test("broadcastState() refuses states of another make, and roots that are none", async (device) => {
    for (const options of [{ affine: false }, { momentum: null }, { trackRunningStats: false }]) {
      const failures = await runRanks(2, (group) => {
        const state = initBatchNorm(device, 3, group.rank === 0 ? {} : options);
        return failureOnAll(group, broadcastState(state, { device, group }));
      });
      assert.equal(same(failures).code, "disagreement", JSON.stringify(options));
    }
    const state = initBatchNorm(device, 3);
    for (const root of [2, -1, 0.5]) {
      const failures = await runRanks(
        2,
        (group) => failureOnAll(group, broadcastState(state, { device, group }, { root })),
      );
      assert.equal(same(failures).code, "rankFailed");
      assert.match(failures[0].message, /root must be a rank below 2: current value is/);
    }
    const failures = await runRanks(
      2,
      (group) =>
        failureOnAll(group, broadcastState(state, { device, group }, { root: group.rank })),
    );
    assert.equal(same(failures).code, "disagreement");
  });

  test("assertReplicated() finds one flipped bit in any vector, in one collective else", async (device) => {
    const host = oddState();
    for (const name of ["weight", "runningMean", "runningVar"] as const) {
      for (const [at, bit] of [[0, 0], [1, 31], [3, 31], [5, 22]]) {
        const failures = await runRanks(4, (group) => {
          const vector = host[name];
          assert(vector);
          const odd = group.rank === 2 ? { [name]: flipped(vector, at, bit) } : {};
          const state = stateFromHost(device, { ...host, ...odd });
          return failureOnAll(group, assertReplicated(state, { device, group }));
        });
        const { code, ranks, message } = same(failures);
        assert.deepEqual([code, ranks], ["disagreement", [2]]);
        assert.match(
          message,
          new RegExp(`current ${name}\\[${at}\\] is .* on rank 0 and .* rank 2`),
        );
        assert.match(message, new RegExp(`; rank 2 differs from rank 0 in ${name}: broadcast`));
      }
    }
    await runRanks(3, async (group) => {
      let calls = 0;
      const allGather: ProcessGroup["allGather"] = (...call) => {
        calls++;
        return group.allGather(...call);
      };
      const counting = { worldSize: 3, allGather };
      const state = stateFromHost(device, oddState());
      await assertReplicated({ state, kernel: null }, { device, group: counting });
      assert.equal(calls, 1);
    });
  });

  test("assertReplicated() names the first of many differences, and all ranks and vectors", async (device) => {
    const length = 70_001;
    for (const at of [0, 256, 65_535, 70_000]) {
      const failures = await runRanks(3, (group) => {
        const gathering = {
          worldSize: 3,
          allGather: async (...call: Parameters<ProcessGroup["allGather"]>) => {
            const all = await group.allGather(...call);
            assert(all[0].length <= 512, "values themselves are not sent about");
            return all;
          },
        };
        const long = new Float32Array(length);
        if (group.rank > 0) long.fill(group.rank, at, at + 3 * group.rank);
        const tree = {
          a: device.upload(Float32Array.of(1)),
          b: [tensor(device, long, [length, 1])],
        };
        return failureOnAll(group, assertReplicated(tree, { device, group: gathering }));
      });
      const { ranks, message } = same(failures);
      assert.deepEqual(ranks, [1, 2]);
      assert(
        message.includes(
          `current b.0[${at}] is 0 (0x00000000) on rank 0 and 1 (0x3f800000) on rank 1; ` +
            `ranks 1, 2 differ from rank 0 in b.0: `,
        ),
        message,
      );
    }
  });

  test("assertReplicated() compares numbers and structures too", async (device) => {
    const failWith = async (odd: object) =>
      same(
        await runRanks(2, (group) => {
          const state = initBatchNorm(device, 2);
          const own = group.rank === 0 ? state : { ...state, ...odd };
          return failureOnAll(group, assertReplicated({ norm: own }, { device, group }));
        }),
      );
    const eps = await failWith({ eps: 2e-5, numBatchesTracked: 1 });
    assert.deepEqual(eps.ranks, [1]);
    assert.match(eps.message, /current norm\.eps is 0\.00001 on rank 0 and 0\.00002 on rank 1/);
    assert.match(eps.message, /rank 1 differs from rank 0 in norm\.eps, norm\.numBatchesTracked:/);
    const zero = await runRanks(2, (group) => {
      const tree = { zero: group.rank === 0 ? 0 : -0, nothing: NaN };
      return failureOnAll(group, assertReplicated(tree, { device, group }));
    });
    assert.match(same(zero).message, /current zero is 0 on rank 0 and -0 on rank 1; .* in zero:/);
    const structure = await failWith({ bias: null });
    assert.deepEqual([structure.code, structure.ranks], ["disagreement", [0, 1]]);
  });
}

/** Compiles only where a tree of gradients keeps its type. */
export async function keepsTypes<A>(
  device: Device<A>,
  group: ProcessGroup,
  given: { readonly kernel: Tensor<A>; readonly norms: readonly [A, null] },
): Promise<A> {
  const { norms: [weight] } = await allReduceGradients(given, { device, group });
  return weight;
}
