/** Every error: its type, its text, and that nothing has changed. */

import assert from "node:assert/strict";
import {
  addScaled,
  allReduceGradients,
  allReduceMoments,
  applyLayer,
  assertReplicated,
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  type BatchNormState,
  broadcastState,
  CollectiveError,
  type Device,
  DeviceError,
  type DType,
  type Format,
  initBatchNorm,
  initLayer,
  joinUneven,
  lossScale,
  type ProcessGroup,
  referenceDevice,
  runRanks,
  type Saved,
  stateFromHost,
  stateToHost,
  sum,
  syncBatchNormBackward,
  syncBatchNormBackwardAll,
  syncBatchNormForward,
  syncBatchNormForwardAll,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import { assertClose, type DeviceKit, EPSILON, testsOf, throwsLike } from "../kit.ts";
import { census } from "../recording.ts";

type Expected = readonly [type: ErrorConstructor, text: RegExp];

/** Registers the error tests for a device. */
export function errorSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("initBatchNorm() refuses impossible configurations", (device) => {
    const cases: [Parameters<typeof initBatchNorm>[2] & { numFeatures?: number }, Expected][] = [
      [{ numFeatures: 0 }, [RangeError, /numFeatures must be an integer >= 1: current value is 0/]],
      [{ numFeatures: 1.5 }, [RangeError, /numFeatures.*1\.5/]],
      [{ eps: -1 }, [RangeError, /eps must be finite and >= 0: current value is -1/]],
      [{ eps: NaN }, [RangeError, /eps.*NaN/]],
      [{ eps: Infinity }, [RangeError, /eps.*Infinity/]],
      [{ momentum: 1.1 }, [RangeError, /momentum must be in \[0, 1\].*current value is 1\.1/]],
      [{ momentum: -0.1 }, [RangeError, /momentum/]],
      [{ momentum: NaN }, [RangeError, /momentum.*NaN/]],
      [{ weightInit: "uniform" }, [TypeError, /weightInit "uniform" needs options\.random/]],
      [{ weightInit: "zeros" as "ones" }, [TypeError, /weightInit must be.*"zeros"/]],
    ];
    for (const [{ numFeatures = 3, ...options }, [type, text]] of cases) {
      throwsLike(() => initBatchNorm(device, numFeatures, options), type, text);
    }
  });

  test("tensor() refuses shapes, values, dtypes and formats that do not fit", (device) => {
    const make = (shape: unknown, length: number, options = {}) => () =>
      tensor(device, new Float32Array(length), shape as number[], options);
    throwsLike(make([4], 4), TypeError, /rank >= 2: current shape is \(4\)/);
    throwsLike(make("4x4", 16), TypeError, /rank >= 2: current shape is 4x4/);
    throwsLike(make([2, -1], 2), RangeError, /integer >= 0.*\(2, -1\)/);
    throwsLike(make([2, 1.5], 3), RangeError, /integer >= 0/);
    throwsLike(make(Object.assign(new Array(2), { 1: 3 }), 0), RangeError, /integer >= 0/);
    throwsLike(make([2, 0], 0), RangeError, /at least one channel.*\(2, 0\)/);
    throwsLike(make([2, 3], 5), TypeError, /shape \(2, 3\) needs 6 values.*is 5/);
    throwsLike(make([2, 3], 7), TypeError, /needs 6 values.*is 7/);
    throwsLike(make([2, 3], 6, { dtype: "int8" }), TypeError, /dtype must be.*"int8"/);
    throwsLike(make([2, 3], 6, { format: "NHWC" }), TypeError, /format must be.*"NHWC"/);
  });

  test("a float16 tensor needs a device that has float16", (device) => {
    const make = () => tensor(device, [1, 2], [2, 1], { dtype: "float16" });
    if (device.info.float16) return assert.equal(make().dtype, "float16");
    assert.throws(make, (error) => error instanceof DeviceError && error.code === "unsupported");
  });

  const inputs: Record<string, readonly [(device: Device<A>) => Tensor<A>, ...Expected]> = {
    "of rank 1": [
      (device) => ({ ...x(device), shape: [12] }),
      TypeError,
      /input must have a shape \(N, C, ...spatial\) of rank >= 2: current shape is \(12\)/,
    ],
    "without channels": [
      (device) => ({ ...x(device), shape: [6, 0, 2] }),
      RangeError,
      /at least one channel/,
    ],
    "with other channels": [
      (device) => tensor(device, new Float32Array(12), [3, 2, 2]),
      TypeError,
      /channels must equal numFeatures: current values are 2 and 3.*logical \(N, C, ...spatial\)/,
    ],
    "with a shape of another size": [
      (device) => ({ ...x(device), shape: [3, 3, 2] }),
      TypeError,
      /shape \(3, 3, 2\) needs an array of 18 elements: current length is 12/,
    ],
    "with a false dtype": [
      (device) => ({ ...x(device), dtype: "float64" as DType }),
      TypeError,
      /dtype must be.*"float64"/,
    ],
    "with another dtype than its array": [
      (device) => ({ ...x(device), dtype: "float16" }),
      TypeError,
      /dtype must be that of its array: current values are float16 and float32/,
    ],
    "with a false format": [
      (device) => ({ ...x(device), format: "NCHW" as Format }),
      TypeError,
      /format must be.*"NCHW"/,
    ],
    "of another device": [
      () => ({ ...x(referenceDevice()) }) as unknown as Tensor<A>,
      TypeError,
      /Cannot [^:]+ with the input: .*another device/,
    ],
    "that was freed": [
      (device) => {
        const dead = x(device);
        device.free(dead.data);
        return dead;
      },
      TypeError,
      /Cannot [^:]+ with the input: .*freed/,
    ],
    "that is nothing": [
      () => null as unknown as Tensor<A>,
      TypeError,
      /input must be a tensor: current value is null/,
    ],
  };
  for (const [what, [make, type, text]] of Object.entries(inputs)) {
    test(`an input ${what} is refused everywhere and changes nothing`, (device) =>
      refuses(device, initBatchNorm(device, 3), make(device), {}, type, text));
  }

  const states: Record<
    string,
    readonly [
      (device: Device<A>, state: BatchNormState<A>) => Partial<BatchNormState<A>>,
      ...Expected,
    ]
  > = {
    "with a short weight": [
      (device) => ({ weight: device.upload(new Float32Array(2)) }),
      TypeError,
      /length of weight must be numFeatures: current values are 2 and 3/,
    ],
    "with a long runningVar": [
      (device) => ({ runningVar: device.upload(new Float32Array(4)) }),
      TypeError,
      /length of runningVar must be numFeatures: current values are 4 and 3/,
    ],
    "without runningMean only": [
      () => ({ runningMean: null }),
      TypeError,
      /runningMean and runningVar must both.*current runningMean is null/,
    ],
    "without runningVar only": [() => ({ runningVar: null }), TypeError, /runningVar is null/],
    "with negative eps": [() => ({ eps: -1e-5 }), RangeError, /eps must be finite and >= 0/],
    "with momentum 2": [() => ({ momentum: 2 }), RangeError, /momentum must be in \[0, 1\]/],
    "with half a batch counted": [
      () => ({ numBatchesTracked: 0.5 }),
      RangeError,
      /numBatchesTracked must be an integer >= 0/,
    ],
    "with a freed bias": [
      (device, { bias }) => {
        if (bias !== null) device.free(bias);
        return {};
      },
      TypeError,
      /Cannot [^:]+ with bias: .*freed/,
    ],
  };
  for (const [what, [change, type, text]] of Object.entries(states)) {
    test(`a state ${what} is refused everywhere and changes nothing`, (device) => {
      const state = initBatchNorm(device, 3);
      return refuses(device, { ...state, ...change(device, state) }, x(device), {}, type, text);
    });
  }

  test("a residual or activation that does not fit is refused everywhere", async (device) => {
    const state = initBatchNorm(device, 3);
    const residual = tensor(device, new Float32Array(12), [4, 3]);
    const text =
      /residual's shape must be the input's: current values are \(4, 3\) and \(2, 3, 2\)/;
    await refuses(device, state, x(device), { residual }, TypeError, text);
    const activation = "gelu" as "relu";
    await refuses(device, state, x(device), { activation }, TypeError, /activation.*"gelu"/);
    if (!device.info.float16) return;
    const half = tensor(device, new Float32Array(12), [2, 3, 2], { dtype: "float16" });
    const types = /residual's dtype must be the input's: current values are float16 and float32/;
    await refuses(device, state, x(device), { residual: half }, TypeError, types);
  });

  test("a gradOutput that does not fit is refused everywhere", async (device) => {
    const state = initBatchNorm(device, 3);
    const input = x(device);
    const local = batchNormForward(state, input, { device });
    const synced = await runRanks(
      2,
      (group) => syncBatchNormForward(state, input, { device, group }),
    );
    const bad: [Tensor<A>, RegExp][] = [
      [tensor(device, new Float32Array(12), [4, 3]), /gradOutput's shape must be the input's/],
      [{ ...input, shape: [2, 3] }, /gradOutput's shape \(2, 3\) needs an array of 6/],
    ];
    if (device.info.float16) {
      const half = tensor(device, new Float32Array(12), [2, 3, 2], { dtype: "float16" });
      bad.push([half, /gradOutput's dtype must be the input's/]);
    }
    for (const [gradOutput, text] of bad) {
      throwsLike(() => batchNormBackward(local.saved, gradOutput, { device }), TypeError, text);
      throwsLike(
        () => batchNormInferBackward(state, input, gradOutput, { device }),
        TypeError,
        text,
      );
      const call = runRanks(2, async (group) => {
        const dy = group.rank === 1 ? gradOutput : input;
        const { saved } = synced[group.rank];
        const failing = syncBatchNormBackward(saved, dy, { device, group });
        await rejectsOnRank(failing, 1, text);
        await syncBatchNormBackward(saved, input, { device, group });
      });
      await call;
    }
  });

  test("saved go back only the way they came", async (device) => {
    const state = initBatchNorm(device, 3);
    const input = x(device);
    const local = batchNormForward(state, input, { device }).saved;
    const [group, ...others] = await runRanks(2, async (group) => {
      return (await syncBatchNormForward(state, input, { device, group })).saved;
    });
    assert.equal(others.length, 1);
    throwsLike(
      // @ts-expect-error A local backward cannot take a synchronised forward's saved.
      () => batchNormBackward(group, input, { device }),
      TypeError,
      /batchNormBackward takes what batchNormForward saved: current kind is "group"/,
    );
    const one = { worldSize: 1, allReduce: () => Promise.reject(new Error("called")) };
    await assert.rejects(
      // @ts-expect-error A synchronised backward cannot take a local forward's saved.
      syncBatchNormBackward(local, input, { device, group: one }),
      /syncBatchNormBackward takes what syncBatchNormForward saved: current kind is "local"/,
    );
    await assert.rejects(
      syncBatchNormBackward(group, input, { device, group: one }),
      /group must be that of forward: current numbers of ranks are 1 and, in forward, 2/,
    );
    await runRanks(3, async (other) => {
      const failing = syncBatchNormBackward(group, input, { device, group: other });
      await assert.rejects(failing, (error) => {
        assert(error instanceof CollectiveError && error.cause instanceof RangeError);
        assert.match(error.message, /numbers of ranks are 3 and, in forward, 2/);
        return true;
      });
    });
  });

  test("what saved borrow must still be there, on every rank", async (device) => {
    const input = x(device);
    const options = { activation: "relu" } as const;
    for (const what of ["weight", "bias", "input", "moments", "output"] as const) {
      const text = new RegExp(`Cannot compute the gradients with the saved ${what}: .*freed`);
      const kill = ({ weight, bias, input, moments, output }: Saved<A>) => {
        const dead =
          { weight, bias, input: input.data, moments: moments.data, output: output?.data }[what];
        assert(device.owns(dead));
        device.free(dead);
      };
      const own = { ...input, data: device.addScaled({ x: input.data, y: input.data, scale: 0 }) };
      const local = batchNormForward(initBatchNorm(device, 3), own, { device }, options);
      kill(local.saved);
      throwsLike(() => batchNormBackward(local.saved, input, { device }), TypeError, text);
      await runRanks(2, async (group) => {
        const mine = {
          ...input,
          data: device.addScaled({ x: input.data, y: input.data, scale: 0 }),
        };
        const effects = { device, group };
        const forward = await syncBatchNormForward(
          initBatchNorm(device, 3),
          mine,
          effects,
          options,
        );
        if (group.rank === 1) kill(forward.saved);
        await rejectsOnRank(syncBatchNormBackward(forward.saved, input, effects), 1, text);
      });
    }
  });

  test("a state's vectors must be float32", async (device) => {
    if (!device.info.float16) {
      return assert.throws(() => device.upload(new Float32Array(3), "float16"), DeviceError);
    }
    const weight = device.upload(new Float32Array(3), "float16");
    const state = { ...initBatchNorm(device, 3), weight };
    const text = /weight must be float32: current dtype is float16/;
    await refuses(device, state, x(device), {}, TypeError, text);
  });

  test("options that are no record are that rank's failure", async (device) => {
    const state = initBatchNorm(device, 3);
    await runRanks(2, async (group) => {
      const options = group.rank === 1 ? null as never : {};
      const call = syncBatchNormForward(state, x(device), { device, group }, options);
      await rejectsOnRank(call, 1, /null/);
    });
  });

  test("what is no device, state or array of numbers is refused", async (device) => {
    const state = initBatchNorm(device, 3);
    const bare = device as never; // Instead of { device }: the likeliest slip.
    const text =
      /effects must be { device }, with group or groups where ranks share: current value holds no/;
    throwsLike(() => batchNormForward(state, x(device), bare), TypeError, text);
    throwsLike(() => batchNormInfer(state, x(device), bare), TypeError, text);
    throwsLike(() => batchNormInferBackward(state, x(device), x(device), bare), TypeError, text);
    const { saved } = batchNormForward(state, x(device), { device });
    throwsLike(() => batchNormBackward(saved, x(device), bare), TypeError, text);
    await assert.rejects(syncBatchNormForward(state, x(device), bare), text);
    await assert.rejects(syncBatchNormBackward({} as never, x(device), bare), text);
    await refuses(device, null as never, x(device), {}, TypeError, /state must be a record/);
    throwsLike(() => tensor(device, null as never, [1, 1]), TypeError, /array of numbers.*null/);
  });

  test("what is no group is refused", async (device) => {
    const state = initBatchNorm(device, 3);
    const allReduce = () => Promise.reject(new Error("called"));
    const groups: [unknown, ErrorConstructor, RegExp][] = [
      [undefined, TypeError, /effects\.group must be \{ worldSize, allReduce \}/],
      [{ worldSize: 2 }, TypeError, /effects\.group must be/],
      [{ worldSize: 0, allReduce }, RangeError, /worldSize must be an integer >= 1.*is 0/],
      [{ allReduce }, RangeError, /worldSize must be an integer >= 1.*is undefined/],
    ];
    for (const [group, type, text] of groups) {
      const effects = { device, group: group as ProcessGroup };
      for (
        const call of [
          () => syncBatchNormForward(state, x(device), effects),
          () => syncBatchNormBackward({} as never, x(device), effects),
        ]
      ) {
        await assert.rejects(call, (error) => {
          throwsLike(
            () => {
              throw error;
            },
            type,
            text,
          );
          return true;
        });
      }
    }
  });

  test("one value per channel has no variance, alone or in the whole group", async (device) => {
    const tracked = initBatchNorm(device, 3);
    const untracked = initBatchNorm(device, 3, { trackRunningStats: false });
    const input = tensor(device, [1, 2, 3], [1, 3]);
    const empty = tensor(device, [], [0, 3]);
    const text = /more than 1 value per channel to have a variance: current number.*is 1/;
    throwsLike(() => batchNormForward(tracked, input, { device }), RangeError, text);
    throwsLike(() => batchNormInfer(untracked, input, { device }), RangeError, text);
    throwsLike(
      () => batchNormInferBackward(untracked, input, input, { device }),
      RangeError,
      text,
    );
    const before = await stateToHost(device, tracked);
    await runRanks(3, async (group) => {
      const part = group.rank === 1 ? input : empty;
      const failing = syncBatchNormForward(tracked, part, { device, group });
      await assert.rejects(failing, { name: "RangeError", message: text });
      const { state } = await syncBatchNormForward(tracked, input, { device, group });
      assert.equal(state.numBatchesTracked, 1);
    });
    assert.deepEqual(await stateToHost(device, tracked), before);
    const evaluated = await toArray(device, batchNormInfer(tracked, input, { device }));
    const expected = [1, 2, 3].map((value) => value / Math.sqrt(1 + 1e-5));
    const relative = kit.ulps * EPSILON.float32;
    assertClose(evaluated, expected, { absolute: 0, relative }, "running statistics need no batch");
  });

  test("a collective that returns something else is refused", async (device) => {
    const state = initBatchNorm(device, 3);
    // x has four values per channel: no total is smaller.
    for (const count of [NaN, -3, 2.5, Infinity, 0, 3]) {
      const allReduce = () => Promise.resolve(Float64Array.of(count, 0, 0, 0, 1, 1, 1));
      await assert.rejects(
        syncBatchNormForward(state, x(device), { device, group: { worldSize: 2, allReduce } }),
        {
          name: "RangeError",
          message: /count that allReduce resolves to must be an integer >= this/,
        },
      );
    }
    const [{ saved }] = await runRanks(
      2,
      (group) => syncBatchNormForward(state, x(device), { device, group }),
    );
    const short = { worldSize: 2, allReduce: () => Promise.resolve(new Float64Array(5)) };
    await assert.rejects(
      syncBatchNormBackward(saved, x(device), { device, group: short }),
      { name: "TypeError", message: /Float64Array of 6 values: current value is 5 values long/ },
    );
    const deaf = { worldSize: 2, allReduce: () => Promise.resolve(new Float64Array(6)) };
    const wrong = { ...x(device), shape: [12] };
    await assert.rejects(
      syncBatchNormBackward(saved, wrong, { device, group: deaf }),
      /gradOutput must have a shape/,
    );
    for (const wrong of [new Float64Array(3), [0, 0, 0], undefined]) {
      const allReduce = () => Promise.resolve(wrong as Float64Array);
      await assert.rejects(
        syncBatchNormForward(state, x(device), { device, group: { worldSize: 2, allReduce } }),
        { name: "TypeError", message: /allReduce must resolve to a Float64Array of 7 values/ },
      );
    }
  });

  test("an engine that gives up before its values are ready leaves nothing unhandled", async (device) => {
    const state = initBatchNorm(device, 3);
    const allReduce = () => Promise.reject(new Error("no connection"));
    const group = { worldSize: 2, allReduce };
    const wrong = { ...x(device), shape: [12] };
    await assert.rejects(syncBatchNormForward(state, wrong, { device, group }), /no connection/);
    const [{ saved }] = await runRanks(
      2,
      (ranks) => syncBatchNormForward(state, x(device), { device, group: ranks }),
    );
    await assert.rejects(
      syncBatchNormBackward(saved, wrong, { device, group }),
      /no connection/,
    );
  });

  test("a cancelled synchronised call leaves the state valid", async (device) => {
    const state = initBatchNorm(device, 3);
    await runRanks(2, async (group) => {
      const signal = group.rank === 0 ? AbortSignal.abort(new Error("stop")) : undefined;
      const call = syncBatchNormForward(state, x(device), { device, group }, { signal });
      await assert.rejects(call, (e) => e instanceof CollectiveError && e.code === "cancelled");
    });
    assert.equal(batchNormForward(state, x(device), { device }).state.numBatchesTracked, 1);
    const forwards = await runRanks(
      2,
      (group) => syncBatchNormForward(state, x(device), { device, group }),
    );
    await runRanks(2, async (group) => {
      const signal = group.rank === 0 ? AbortSignal.abort(new Error("stop")) : undefined;
      const { saved } = forwards[group.rank];
      const call = syncBatchNormBackward(saved, x(device), { device, group }, { signal });
      await assert.rejects(call, (e) => e instanceof CollectiveError && e.code === "cancelled");
    });
    const alone = { worldSize: 1, allReduce: () => Promise.reject(new Error("called")) };
    const signal = AbortSignal.abort(new Error("stop"));
    await assert.rejects(
      syncBatchNormForward(state, x(device), { device, group: alone }, { signal }),
      (e) => e instanceof CollectiveError && e.code === "cancelled" && e.cause === signal.reason,
    );
  });

  test("ranks that disagree all learn what each of them did", async (device) => {
    const three = initBatchNorm(device, 3);
    const two = initBatchNorm(device, 2);
    const messages = await runRanks(2, async (group) => {
      const call = group.rank === 0
        ? syncBatchNormForward(three, x(device), { device, group })
        : syncBatchNormForward(two, tensor(device, new Float32Array(8), [4, 2]), { device, group });
      return await call.then(() => "", (error: CollectiveError) => error.message);
    });
    assert.equal(messages[0], messages[1]);
    assert.match(messages[0], /rank 0 called allReduce "syncBatchNormForward C=3 float32"/);
    assert.match(messages[0], /rank 1 called allReduce "syncBatchNormForward C=2 float32"/);
  });

  test("stateFromHost() refuses vectors that do not fit and uploads none of them", async (device) => {
    const host = await stateToHost(device, initBatchNorm(device, 3));
    const counted = census(device);
    const make = (change: object) => () => stateFromHost(counted.device, { ...host, ...change });
    throwsLike(
      make({ bias: new Float32Array(2) }),
      TypeError,
      /length of bias must be numFeatures/,
    );
    throwsLike(make({ weight: [1, 1, 1] }), TypeError, /weight must be a Float32Array or null/);
    throwsLike(make({ runningVar: null }), TypeError, /runningVar is null/);
    throwsLike(make({ momentum: undefined }), RangeError, /momentum/);
    assert.equal(counted.alive(), 0);
    let uploads = 0;
    const full: Device<A> = {
      ...counted.device,
      upload: (...args) => {
        if (++uploads === 3) throw new RangeError("out of memory");
        return counted.device.upload(...args);
      },
    };
    throwsLike(() => stateFromHost(full, host), RangeError, /out of memory/);
    assert.equal(counted.alive(), 0, "a state that does not fit leaves nothing behind");
  });

  test("addScaled() refuses other lengths and infinite scales", (device) => {
    const [x, y] = [device.upload(new Float32Array(2)), device.upload(new Float32Array(3))];
    throwsLike(() => addScaled(device, x, y, 1), TypeError, /lengths must be equal.*2 and 3/);
    throwsLike(() => addScaled(device, x, x, NaN), RangeError, /scale must be finite.*NaN/);
  });

  test("whatever is wrong on one rank before the collective reaches all at once", async (device) => {
    const state = initBatchNorm(device, 3);
    const layer = initLayer(device, "batchNorm", 3, { processGroup: "world" });
    const input = x(device);
    const any = (value: unknown) => value as never;
    const wrong: readonly (readonly [string, (group: ProcessGroup) => Promise<unknown>])[] = [
      ["no device", (group) => syncBatchNormForward(state, input, any({ group }))],
      [
        "a device of nothing",
        (group) => syncBatchNormForward(state, input, any({ group, device: {} })),
      ],
      ["no state", (group) => syncBatchNormForward(any(null), input, { device, group })],
      ["a layer", (group) => syncBatchNormForward(any(layer), input, { device, group })],
      ["no input", (group) => syncBatchNormForward(state, any(undefined), { device, group })],
      [
        "a bigint",
        (group) => syncBatchNormForward({ ...state, eps: any(1n) }, input, { device, group }),
      ],
      ["null", (group) => syncBatchNormForward(state, input, { device, group }, any(null))],
      [
        "epsilon",
        (group) => syncBatchNormForward(state, input, { device, group }, any({ epsilon: 1 })),
      ],
      [
        "no signal",
        (group) => syncBatchNormForward(state, input, { device, group }, any({ signal: 5 })),
      ],
      [
        "no boolean",
        (group) =>
          syncBatchNormForward(state, input, { device, group }, any({ updateRunningStats: "no" })),
      ],
      ["no branches", (group) => syncBatchNormForwardAll(any({}), { device, group })],
      ["no branch", (group) => syncBatchNormForwardAll(any([null]), { device, group })],
      [
        "no saved values",
        (group) => syncBatchNormBackward(any(undefined), input, { device, group }),
      ],
      ["no saved branches", (group) => syncBatchNormBackwardAll(any(5), { device, group })],
      ["no layer", (group) => applyLayer(any(5), input, { device, groups: { world: group } })],
      [
        "half a layer",
        (group) =>
          applyLayer(any({ processGroup: "world" }), input, { device, groups: { world: group } }),
      ],
      [
        "another name",
        (group) =>
          applyLayer({ ...layer, processGroup: "wrold" }, input, {
            device,
            groups: { world: group },
          }),
      ],
      [
        "no name",
        (group) =>
          applyLayer(any({ ...layer, processGroup: 5 }), input, {
            device,
            groups: { world: group },
          }),
      ],
      ["a layer's device", (group) => applyLayer(layer, input, any({ groups: { world: group } }))],
      ["no moments", (group) => allReduceMoments(any(input.data), { device, group })],
      ["a gradient's device", (group) => allReduceGradients({ w: input }, any({ group }))],
      [
        "no average",
        (group) => allReduceGradients({ w: input }, { device, group }, any({ average: "yes" })),
      ],
      [
        "too many buckets",
        (group) => allReduceGradients({ w: input }, { device, group }, { buckets: 1e8 }),
      ],
      ["no options", (group) => allReduceGradients({ w: input }, { device, group }, any(null))],
      ["a state's device", (group) => broadcastState(state, any({ group }))],
      ["a wrong root", (group) => broadcastState(state, { device, group }, { root: 7 })],
      ["a replica's device", (group) => assertReplicated(state, any({ group }))],
      ["a scale's signal", (group) => lossScale(3, group, any({ signal: 5 }))],
      ["a scale's count", (group) => lossScale(any(3n), group)],
      ["no options of steps", (group) => joinUneven([input], group, any(null)).next()],
      [
        "another option of steps",
        (group) => joinUneven([input], group, any({ whenout: 1 })).next(),
      ],
    ];
    for (const [what, call] of wrong) {
      await runRanks(2, async (group) => {
        const mine = group.rank === 1
          ? call(group)
          : syncBatchNormForward(state, x(device), { device, group });
        await assert.rejects(mine, (error) => {
          assert(error instanceof CollectiveError, `${what}: ${error}`);
          assert.deepEqual([error.code, error.ranks], ["rankFailed", [1]], what);
          return true;
        });
        // And the group stays usable.
        await group.barrier();
      });
    }
  });

  test("what backward is given back of forward is checked, all of it", async (device) => {
    const input = x(device);
    const state = initBatchNorm(device, 3);
    const { saved } = batchNormForward(state, input, { device });
    const other = batchNormForward(
      initBatchNorm(device, 2),
      tensor(device, [1, 2, 3, 4], [2, 2]),
      { device },
    );
    const forged: readonly (readonly [Record<string, unknown>, RegExp])[] = [
      [{ moments: other.saved.moments }, /saved moments must be of shape \(1, 3\)/],
      [{ moments: saved.moments.data }, /saved moments must be a record/],
      [
        { moments: { ...saved.moments, data: input.data } },
        /saved moments must hold 7 numbers: .* holds 12/,
      ],
      [{ moments: { ...saved.moments, count: -1 } }, /count of the saved moments/],
      [{ eps: NaN }, /eps must be finite and >= 0: current value is NaN/],
      [{ eps: -1 }, /eps must be finite and >= 0: current value is -1/],
      [{ eps: "0.1" }, /eps must be finite and >= 0: current value is "0.1"/],
      [{ residualFormat: "NHWC" }, /residualFormat must be "channelsFirst", .*"NHWC"/],
      [{ weight: input.data }, /saved weight must hold 3 float32/],
      [{ bias: other.saved.bias }, /saved bias must hold 3 float32/],
      [{ output: other.output }, /saved output's shape must be the input's/],
    ];
    const group = { worldSize: 2, allReduce: (local: unknown) => Promise.resolve(local) as never };
    for (const [fields, text] of forged) {
      const wrong = { ...saved, ...fields } as typeof saved;
      assert.throws(() => batchNormBackward(wrong, input, { device }), text);
      const across = { ...wrong, kind: "group", worldSize: 2 } as never;
      await assert.rejects(syncBatchNormBackward(across, input, { device, group }), text);
    }
  });

  test("freed arrays are refused, and a refused free frees nothing", (device) => {
    const [alive, dead] = [device.upload(new Float32Array(2)), device.upload(new Float32Array(2))];
    device.free(dead);
    throwsLike(() => device.free(alive, dead), TypeError, /freed/);
    assert(device.owns(alive) && !device.owns(dead));
    throwsLike(() => device.describe(dead), TypeError, /freed/);
  });
}

function x<B>(device: Device<B>): Tensor<B> {
  return tensor(device, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13], [2, 3, 2]);
}

async function rejectsOnRank(call: Promise<unknown>, rank: number, text: RegExp): Promise<void> {
  await assert.rejects(call, (error) => {
    assert(error instanceof CollectiveError);
    assert.deepEqual([error.code, error.ranks], ["rankFailed", [rank]]);
    assert.match(error.message, text);
    assert(error.cause instanceof Error);
    assert.match(error.cause.message, text);
    return true;
  });
}

/**
 * Fails unless all four functions that normalize refuse a call; the synchronised one on every rank though only one rank
 * makes it, with the others' state unchanged and the group usable. Nothing stays allocated.
 */
async function refuses<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  input: Tensor<A>,
  options: { readonly activation?: "relu"; readonly residual?: Tensor<A> },
  type: ErrorConstructor,
  text: RegExp,
): Promise<void> {
  const good = initBatchNorm(device, 3);
  const before = await stateToHost(device, good);
  const fine = x(device);
  const counted = census(device);
  const effects = { device: counted.device };
  throwsLike(() => batchNormForward(state, input, effects, options), type, text);
  throwsLike(() => batchNormInfer(state, input, effects, options), type, text);
  throwsLike(() => batchNormInferBackward(state, input, fine, effects, options), type, text);
  await runRanks(3, async (group) => {
    const call = group.rank === 1
      ? syncBatchNormForward(state, input, { ...effects, group }, options)
      : syncBatchNormForward(good, fine, { ...effects, group });
    await rejectsOnRank(call, 1, text);
    assert.deepEqual([...await group.allReduce(Float64Array.of(1), sum)], [3]);
  });
  assert.equal(counted.alive(), 0, "nothing stays allocated");
  assert.deepEqual(await stateToHost(device, good), before);
}
