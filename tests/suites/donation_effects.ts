/** When what is given up is freed, who is told before, and what a failure leaves of it. */

import assert from "node:assert/strict";
import {
  batch,
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  type Device,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormForward,
  type Tensor,
  tensor,
} from "../../mod.ts";
import { bitsOf, like, stateOf } from "../donated.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { normalArray } from "../random.ts";
import { census, failing, record } from "../recording.ts";

/** Registers the tests of when donations happen for a device. */
export function donationEffects<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("what is given up is freed once, when all is launched; a device is told before", async (device) => {
    const told: boolean[] = [];
    const freed: A[] = [];
    const free = (...arrays: A[]) => {
      freed.push(...arrays);
      device.free(...arrays);
    };
    const watched = record(telling({ ...device, free }, told));
    const effects = { device: watched.device };
    const state = stateOf(device, 3);
    const x = tensor(device, normalArray(12, 1), [2, 3, 2]);
    const { saved } = batchNormForward(state, x, { device });
    const calls: Record<string, (given: Tensor<A>, donate?: boolean) => unknown> = {
      normalize: (given, donate) => batchNormInfer(state, given, effects, { donate }),
      "gradientSums gradients": (given, donate) =>
        batchNormBackward(saved, given, effects, { donate }),
      " gradientSums gradients": (given, donate) =>
        batchNormInferBackward(state, x, given, effects, { donate }),
    };
    for (const [names, call] of Object.entries(calls)) {
      const operations = names.trim().split(" ");
      for (const donate of [undefined, false, true]) {
        watched.calls.length = told.length = freed.length = 0;
        const given = like(device, x, 7);
        call(given, donate);
        const launched = watched.calls.filter((name) => !["describe", "owns"].includes(name));
        const launches = ["batch", ...operations, "end"];
        assert.deepEqual(launched.slice(0, launches.length), launches);
        assert(launched.slice(launches.length).every((name) => name === "free"), "and scratch");
        assert.equal(freed.filter((array) => array === given.data).length, donate ? 1 : 0);
        assert.deepEqual(told, [donate === true]);
      }
    }
    const toldIn = async (call: () => unknown): Promise<readonly boolean[]> => {
      told.length = 0;
      await call();
      return told.slice();
    };
    const relu = { activation: "relu" } as const;
    const forward = () => batchNormForward(state, x, effects, relu);
    assert.deepEqual(await toldIn(forward), [false], "training");
    const options = { ...relu, donate: true };
    const back = () => batchNormInferBackward(state, x, like(device, x, 7), effects, options);
    // The output, for its sign, is made from an input that is borrowed.
    assert.deepEqual(await toldIn(back), [false, true]);
    const [synced] = await runRanks(
      2,
      (group) => syncBatchNormForward(state, x, { device, group }),
    );
    for (const donate of [true, false]) {
      const both = () =>
        runRanks(2, (group) => {
          const all = { device: group.rank ? device : watched.device, group };
          return syncBatchNormBackward(synced.saved, like(device, x, 7), all, { donate });
        });
      assert.deepEqual(await toldIn(both), [donate], "over a group");
    }
  });

  test("what was to be read before is read as it was", async (device) => {
    const state = stateOf(device, 5);
    const x = tensor(device, normalArray(70, 1), [2, 5, 7]);
    const { saved } = batchNormForward(state, x, { device });
    const expected = await device.download(like(device, x, 7).data);
    const walk = (d: Device<A>) =>
      [0, 1].map((back) => {
        const given = like(d, x, 7);
        const read = d.download(given.data);
        if (back) batchNormBackward(saved, given, { device: d }, { donate: true });
        else batchNormInfer(state, given, { device: d }, { donate: true });
        return read;
      });
    for (const reads of [walk(device), batch(device, walk)]) {
      assert.deepEqual(await Promise.all(reads), [expected, expected]);
    }
  });

  test("a call that fails leaves what it was to be given as it was", async (device) => {
    const state = stateOf(device, 5, false);
    const x = tensor(device, normalArray(70, 1), [2, 5, 7]);
    const options = { activation: "relu", residual: like(device, x, 3), donate: true } as const;
    const { donate, ...kept } = options;
    const { saved } = batchNormForward(state, x, { device }, kept);
    const synced = await runRanks(
      2,
      (group) => syncBatchNormForward(state, x, { device, group }, kept),
    );
    const calls: Record<string, (given: Tensor<A>, d: Device<A>) => unknown> = {
      evaluation: (given, d) => batchNormInfer(state, given, { device: d }, options),
      backward: (given, d) => batchNormBackward(saved, given, { device: d }, { donate }),
      "backward of evaluation": (given, d) =>
        batchNormInferBackward(state, x, given, { device: d }, options),
      "synchronised backward": (given, d) =>
        runRanks(2, (group) => {
          const [dy, own] = group.rank ? [given, d] : [like(device, x, 7), device];
          return syncBatchNormBackward(synced[group.rank].saved, dy, { device: own, group }, {
            donate,
          });
        }),
    };
    for (const [what, call] of Object.entries(calls)) {
      for (let n = 0, reached = true; reached; n++) {
        const given = like(device, x, 7);
        const before = await bitsOf(device, [given]);
        const counted = census(device);
        const broken = failing(counted.device, n);
        const outcome = await Promise.resolve().then(() => call(given, broken.device)).then(
          () => "done",
          (error: Error) => error.message,
        );
        reached = broken.reached();
        assert.match(outcome, reached ? new RegExp(`launch ${n} failed`) : /^done$/, what);
        assert.equal(device.owns(given.data), reached, `${what}, launch ${n}`);
        if (!reached) continue;
        assert.deepEqual(await bitsOf(device, [given]), before, `${what}, launch ${n}`);
        assert.equal(counted.alive(), 0, `${what}, launch ${n}`);
      }
    }
  });

  test("what is given up is settled when a synchronised call begins", async (device) => {
    const state = stateOf(device, 3);
    const x = tensor(device, normalArray(12, 1), [2, 3, 2]);
    await runRanks(2, async (group) => {
      const { saved } = await syncBatchNormForward(state, x, { device, group });
      for (const donate of [true, false]) {
        const [mine, other] = [like(device, x, 7), like(device, x, 8)];
        const [given, options] = [{ ...mine }, { donate }];
        const call = syncBatchNormBackward(saved, given, { device, group }, options);
        given.data = other.data;
        options.donate = !donate;
        await call;
        assert.deepEqual([device.owns(mine.data), device.owns(other.data)], [!donate, true]);
      }
    });
  });
}

/** Derives a device that writes down what its passes are told of overwriting. */
function telling<A>(device: Device<A>, told: boolean[]): Device<A> {
  const { batch } = device;
  return Object.freeze<Device<A>>({
    ...device,
    ...(batch && { batch: <R>(body: (d: Device<A>) => R) => batch((d) => body(telling(d, told))) }),
    normalize: (pass) => {
      told.push(pass.overwrite === true);
      return device.normalize(pass);
    },
    gradients: (pass) => {
      told.push(pass.overwrite === true);
      return device.gradients(pass);
    },
  });
}
