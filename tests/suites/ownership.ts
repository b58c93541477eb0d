/** What lives how long: regions, batches, releases, and that nothing stays that nobody asked for. */

import assert from "node:assert/strict";
import {
  applyLayer,
  batch,
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  type Device,
  initBatchNorm,
  initLazyLayer,
  region,
  release,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormBackwardAll,
  syncBatchNormForward,
  syncBatchNormForwardAll,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import { momentsWire, sumsWire } from "../../lib/device_author.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { census, failing } from "../recording.ts";

/** Registers the tests of ownership for a device. */
export function ownershipSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("region() frees what is not returned, whatever way it ends", async (device) => {
    const counted = census(device);
    const kept = region(counted.device, (scope) => {
      const state = initBatchNorm(scope, 3);
      const { output, saved } = batchNormForward(state, input(scope), { device: scope });
      batchNormBackward(saved, output, { device: scope });
      return { deep: [new Map([["y", output]])], circle: { state } };
    });
    assert.equal(counted.alive(), 1 + 4, "the output and the state's vectors");
    release(counted.device, kept);
    assert.equal(counted.alive(), 0);

    const fail = (scope: Device<A>): never => {
      input(scope);
      throw new Error("body");
    };
    assert.throws(() => region(counted.device, fail), /body/);
    assert.equal(counted.alive(), 0, "after a throw");

    const slow = region(counted.device, async (scope) => {
      const dead = input(scope);
      await Promise.resolve();
      const result = input(scope);
      await toArray(scope, dead);
      return result;
    });
    assert.equal(counted.alive(), 1, "still at work");
    const result = await slow;
    assert.equal(counted.alive(), 1, "the result");
    release(counted.device, result);
    await assert.rejects(
      region(counted.device, async (scope) => {
        input(scope);
        await Promise.resolve();
        fail(scope);
      }),
      /body/,
    );
    assert.equal(counted.alive(), 0, "after a rejection");
  });

  test("region() returns large results and forgets many arrays", (device) => {
    const counted = census(device);
    const result = region(counted.device, (scope) => {
      for (let i = 0; i < 500; i++) scope.upload(Float32Array.of(i));
      return { numbers: new Array(200_000).fill(1), kept: scope.upload(Float32Array.of(1)) };
    });
    assert.equal(result.numbers.length, 200_000);
    assert.equal(counted.alive(), 1);
    release(counted.device, result);
  });

  test("region() bears with arrays that were freed around it, and never hides an error", (device) => {
    const counted = census(device);
    const freeing = (scope: Device<A>) => {
      const [dead] = [input(scope), input(scope)];
      counted.device.free(dead.data);
      return 7;
    };
    assert.equal(region(counted.device, freeing), 7);
    assert.equal(counted.alive(), 0);
    const failing = (scope: Device<A>) => {
      freeing(scope);
      throw new Error("the body's own");
    };
    assert.throws(() => region(counted.device, failing), /the body's own/);
    const stubborn = {
      ...counted.device,
      free: () => {
        throw new Error("lost");
      },
    };
    assert.throws(() => region(stubborn, failing), /the body's own/);
  });

  test("regions nest, and end", (device) => {
    const counted = census(device);
    let leaked: Device<A> | undefined;
    const outer = region(counted.device, (scope) => {
      const inner = region(scope, (nested) => {
        leaked = nested;
        input(nested);
        return input(nested);
      });
      assert.equal(counted.alive(), 1);
      const freed = input(scope);
      scope.free(freed.data);
      return [inner];
    });
    assert.equal(counted.alive(), 1);
    assert.throws(
      () => leaked && input(leaked),
      /Cannot launch in the region as its body has ended/,
    );
    assert.equal(counted.alive(), 1);
    release(counted.device, outer);
  });

  test("ranks that interleave at awaits keep their regions apart", async (device) => {
    const counted = census(device);
    const state = initBatchNorm(device, 3);
    const outputs = await runRanks(3, (group) =>
      region(counted.device, async (scope) => {
        const effects = { device: scope, group };
        const { output, saved } = await syncBatchNormForward(state, input(scope), effects);
        await syncBatchNormBackward(saved, output, effects);
        return output;
      }));
    assert.equal(counted.alive(), 3);
    for (const output of outputs) assert.equal((await toArray(device, output)).length, 12);
  });

  test("no function keeps more than it returns", async (device) => {
    const state = initBatchNorm(device, 3);
    const untracked = initBatchNorm(device, 3, { trackRunningStats: false });
    const x = input(device);
    const options = { activation: "relu", residual: input(device) } as const;
    const counted = census(device);
    const effects = { device: counted.device };
    const grown = (what: string, by: number, before = counted.alive()) => ({
      check: () => assert.equal(counted.alive() - before, by, what),
    });
    const expect = async (what: string, by: number, body: () => unknown) => {
      const { check } = grown(what, by);
      await body();
      check();
    };
    const local = batchNormForward(state, x, effects, options);
    assert.equal(counted.alive(), 4, "output, two running statistics, moments");
    await expect("backward", 4, () => batchNormBackward(local.saved, x, effects));
    const relu = batchNormForward(state, x, effects, { activation: "relu" });
    await expect("backward of a ReLU", 3, () => batchNormBackward(relu.saved, x, effects));
    await expect("inference", 1, () => batchNormInfer(state, x, effects, options));
    await expect("inference of an untracked state", 1, () => batchNormInfer(untracked, x, effects));
    await expect(
      "its gradients",
      4,
      () => batchNormInferBackward(untracked, x, x, effects, options),
    );
    await expect(
      "those of a ReLU without a residual",
      3,
      () => batchNormInferBackward(state, x, x, effects, { activation: "relu" }),
    );
    await expect("two synchronised ranks", 2 * (4 + 4), () =>
      runRanks(2, async (group) => {
        const all = { ...effects, group };
        const { saved } = await syncBatchNormForward(state, x, all, options);
        await syncBatchNormBackward(saved, x, all);
      }));
    await expect(
      "branches of two ranks, of which one keeps its sums",
      2 * (2 * (4 + 3) + 2),
      () =>
        runRanks(2, async (group) => {
          const all = { ...effects, group };
          const branches = [{ state, input: x }, { state, input: x }];
          const forwards = await syncBatchNormForwardAll(branches, all);
          const [one, other] = forwards.map(({ saved }) => ({ saved, gradOutput: x }));
          await syncBatchNormBackwardAll([one, { ...other, options: { keepSums: true } }], all);
        }),
    );
    await expect(
      "layers of two ranks that were lazy",
      2 * (2 + 4),
      () =>
        runRanks(2, async (world) => {
          const lazy = initLazyLayer("batchNorm", { processGroup: "world" });
          await applyLayer(lazy, x, { ...effects, groups: { world } });
        }),
    );
  });

  test("a device that fails in the middle leaves nothing behind", async (device) => {
    const state = initBatchNorm(device, 3);
    const untracked = initBatchNorm(device, 3, { trackRunningStats: false });
    const x = input(device);
    const options = { activation: "relu", residual: input(device) } as const;
    const local = batchNormForward(state, x, { device }, options);
    const synced = await runRanks(
      2,
      (group) => syncBatchNormForward(state, x, { device, group }, options),
    );
    const calls: Record<string, (device: Device<A>) => unknown> = {
      forward: (d) => batchNormForward(state, x, { device: d }, options),
      backward: (d) => batchNormBackward(local.saved, x, { device: d }),
      inference: (d) => batchNormInfer(untracked, x, { device: d }, options),
      "its gradients": (d) => batchNormInferBackward(untracked, x, x, { device: d }, options),
      "synchronised forward": (d) =>
        runRanks(
          2,
          (group) =>
            syncBatchNormForward(state, x, { device: group.rank ? d : device, group }, options),
        ),
      "synchronised backward": (d) =>
        runRanks(2, (group) => {
          const effects = { device: group.rank ? d : device, group };
          return syncBatchNormBackward(synced[group.rank].saved, x, effects);
        }),
    };
    for (const [what, call] of Object.entries(calls)) {
      for (let n = 0, reached = true; reached; n++) {
        const counted = census(device);
        const broken = failing(counted.device, n);
        const outcome = await Promise.resolve().then(() => call(broken.device)).then(
          () => "done",
          (error: Error) => error.message,
        );
        reached = broken.reached();
        if (!reached) {
          assert.equal(outcome, "done");
          assert(n > 1, `${what} launches something`);
          continue;
        }
        assert.match(outcome, new RegExp(`launch ${n} failed`), `${what}, launch ${n}`);
        assert.equal(counted.alive(), 0, `${what}, launch ${n}`);
      }
    }
  });

  test("regions free everything though one free fails, and forget what is freed", (device) => {
    const counted = census(device);
    let frees = 0;
    const stubborn: Device<A> = {
      ...counted.device,
      free: (...arrays) => {
        if (++frees === 2) throw new Error("lost");
        counted.device.free(...arrays);
      },
    };
    const body = (scope: Device<A>) =>
      void [input(scope), input(scope), input(scope), input(scope)];
    assert.throws(() => region(stubborn, body), /lost/);
    assert.equal(counted.alive(), 1, "only the one that could not be freed");

    let asked = 0;
    const listening: Device<A> = {
      ...device,
      owns: (value): value is A => {
        asked++;
        return device.owns(value);
      },
    };
    let made = 0;
    region(listening, (scope) => {
      for (let step = 0; step < 100; step++) scope.free(input(scope).data);
      made = asked;
    });
    assert.equal(asked, made, "nothing freed in the body is kept until its end");
  });

  test("a region's handle hands on whatever another device's own operation is given", (device) => {
    const own = { ...device, joined: (...parts: string[]) => parts.join("") };
    region(own, (scope) => {
      assert.equal((scope as typeof own).joined("a", "b", "c", "d"), "abcd");
      assert.equal((scope as typeof own).joined("a"), "a");
    });
  });

  test("release() keeps what is reachable from keep", (device) => {
    const state = initBatchNorm(device, 3);
    const x = input(device);
    const forward = batchNormForward(state, x, { device });
    release(device, [state, forward], { keep: [forward.state, x] });
    assert(forward.state.weight !== null && device.owns(forward.state.weight));
    assert(!device.owns(state.runningMean) && !device.owns(forward.output.data));
    assert(device.owns(x.data));
    release(device, [state, forward], { keep: [forward.state, x] });
  });

  test("trees that lead back to themselves are walked to an end", (device) => {
    const counted = census(device);
    const circle = (scope: Device<A>) => {
      const ring: Record<string, unknown> = { x: input(scope) };
      ring.deep = [new Map([["ring", ring]])];
      return ring;
    };
    const kept = region(counted.device, (scope) => {
      input(scope); // Something to look for in vain.
      return circle(scope);
    });
    assert.equal(counted.alive(), 1);
    release(counted.device, kept, { keep: circle(device) });
    assert.equal(counted.alive(), 0);
  });

  test("a result keeps its shape, whatever becomes of the input's", (device) => {
    const shape = [2, 3, 4];
    const x = tensor(device, new Float32Array(24).fill(1), shape);
    const { output } = batchNormForward(initBatchNorm(device, 3), { ...x, shape }, { device });
    shape[0] = 9;
    assert.deepEqual(output.shape, [2, 3, 4]);
    assert.throws(() => (output.shape as number[]).push(1), TypeError);
  });

  test("batch() gives the body's result and refuses an asynchronous one", async (device) => {
    const sum = batch(device, (d) => {
      const x = d.upload(Float32Array.of(1, 2));
      return { sum: d.addScaled({ x, y: x, scale: 1 }), read: d.download(x) };
    });
    assert.deepEqual(await sum.read, Float32Array.of(1, 2));
    assert.deepEqual(await device.download(sum.sum), Float32Array.of(2, 4));
    assert.throws(
      () => batch(device, () => Promise.resolve(1)),
      /Cannot batch an asynchronous body/,
    );
    assert.throws(
      () => batch(device, () => Promise.reject(new Error("lost"))),
      /Cannot batch an asynchronous body/,
    );
  });

  test("batches hold whole layers, nest, free and end", async (device) => {
    const state = initBatchNorm(device, 3);
    const x = input(device);
    const alone = batchNormForward(state, x, { device });
    const second = batchNormForward(alone.state, alone.output, { device }, { activation: "relu" });
    const counted = census(device);
    let leaked: Device<A> | undefined;
    const together = region(counted.device, (scope) =>
      batch(scope, (d) => {
        leaked = d;
        const one = batchNormForward(state, x, { device: d });
        const scratch = batch(d, (nested) =>
          nested.addScaled({ x: one.output.data, y: x.data, scale: 1 }));
        d.free(scratch);
        const two = batchNormForward(one.state, one.output, { device: d }, { activation: "relu" });
        const { gradInput } = batchNormBackward(two.saved, x, { device: d });
        return { output: two.output, gradInput, read: d.download(two.output.data) };
      }));
    const expected = await toArray(device, second.output);
    assert.deepEqual(await toArray(device, together.output), expected);
    assert.deepEqual(await together.read, expected);
    assert.deepEqual(
      await toArray(device, together.gradInput),
      await toArray(device, batchNormBackward(second.saved, x, { device }).gradInput),
    );
    assert.equal(counted.alive(), 2, "what a region made through a batch is the region's");
    assert.throws(
      () => leaked && input(leaked),
      /Cannot launch in the batch as its body has ended/,
    );
    assert.throws(
      () =>
        batch(device, (d) => {
          input(d);
          throw new Error("the body's own");
        }),
      /the body's own/,
    );
    assert.equal(counted.alive(), 2);
    assert.throws(
      () =>
        batch(counted.device, (d) => {
          input(d);
          throw new Error("the body's own");
        }),
      /the body's own/,
    );
    assert.equal(counted.alive(), 2, "a batch that fails keeps nothing");
    assert.deepEqual(
      await toArray(device, batchNormForward(state, x, { device }).output),
      await toArray(device, alone.output),
    );
  });

  test("a batch that fails within another frees what it made, and no more", (device) => {
    const made: A[] = [];
    const upload = (d: Device<A>) => made.push(d.upload(Float32Array.of(1)));
    const failed = (d: Device<A>): void => {
      upload(d);
      throw new Error("the body's own");
    };
    const alive = () => made.map(device.owns);
    batch(device, (d) => {
      upload(d);
      d.free(made[0]); // Freed before: nobody frees it again.
      upload(d);
      assert.throws(() => batch(d, failed), /the body's own/);
      assert.deepEqual(alive(), [false, true, false]);
      upload(d);
    });
    assert.deepEqual(alive(), [false, true, false, true]);
    assert.throws(() =>
      batch(device, (d) => {
        batch(d, upload);
        failed(d);
      }), /the body's own/);
    assert.deepEqual(alive(), [false, true, false, true, false, false]);
  });

  test("wires are copies both ways, and an array may be named twice to be freed", async (device) => {
    const wire = Float64Array.of(4, 1, 2, 3, 4);
    const moments = device.fromWire(momentsWire, wire);
    wire.fill(9);
    const first = await device.toWire(moments);
    first.fill(7);
    assert.deepEqual(await device.toWire(moments), Float64Array.of(4, 1, 2, 3, 4));
    const numbers = Float64Array.of(1, 2);
    const sums = device.fromWire(sumsWire, numbers);
    numbers.fill(9);
    (await device.toWire(sums)).fill(7);
    assert.deepEqual(await device.toWire(sums), Float64Array.of(1, 2));
    device.free(sums, sums, moments);
    assert(!device.owns(sums) && !device.owns(moments));
  });

  test("uploads are copies and downloads too", async (device) => {
    const values = Float32Array.of(1, 2);
    const array = device.upload(values);
    values.fill(9);
    const first = await device.download(array);
    first.fill(7);
    assert.deepEqual(await device.download(array), Float32Array.of(1, 2));
  });
}

function input<B>(device: Device<B>): Tensor<B> {
  return tensor(device, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13], [2, 3, 2]);
}
