/** Batch renormalization on a device. */

import assert from "node:assert/strict";
import {
  batchNormForward,
  batchRenormBackward,
  batchRenormForward,
  type Device,
  type DType,
  type Format,
  initBatchNorm,
  runRanks,
  stateFromHost,
  stateToHost,
  syncBatchNormForward,
  syncBatchRenormBackward,
  syncBatchRenormForward,
  tensor,
  toArray,
} from "../../mod.ts";
import golden from "../golden/rules.json" with { type: "json" };
import { assertClose, type DeviceKit, EPSILON, testsOf } from "../kit.ts";
import { permute } from "../oracle.ts";
import { normalArray } from "../random.ts";
import { census } from "../recording.ts";

/** Registers the tests of renormalization for a device. */
export function renormSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);
  const { shape: [samples, C, inner], eps, momentum, rmax, dmax, steps } = golden.renorm;
  const each = C * inner;
  const first = async (device: Device<A>) => {
    const host = await stateToHost(device, initBatchNorm(device, C, { eps, momentum }));
    const { weight, bias, runningMean, runningVar } = golden.renorm;
    const vectors = Object.entries({ weight, bias, runningMean, runningVar })
      .map(([name, values]) => [name, Float32Array.from(values)]);
    return stateFromHost(device, { ...host, ...Object.fromEntries(vectors) });
  };

  test("renormalization has the paper's numbers over two steps, on one rank and on three, in both formats and dtypes", async (device) => {
    const dtypes: readonly DType[] = device.info.float16 ? ["float32", "float16"] : ["float32"];
    const formats = ["channelsFirst", "channelsLast"] as const;
    for (const [d, dtype] of dtypes.entries()) {
      for (const format of kit.ways ? formats.slice(d, d + 1) : formats) {
        for (const cuts of [[0, samples], [0, 1, 1, samples]]) {
          await runRanks(cuts.length - 1, async (group) => {
            const put = (values: readonly number[], format: Format) => {
              const own = values.slice(cuts[group.rank] * each, cuts[group.rank + 1] * each);
              const lying = format === "channelsLast"
                ? permute(own, { channels: C, inner }, format)
                : own;
              return tensor(device, lying, [own.length / each, C, inner], { dtype, format });
            };
            const effects = { device, group };
            let state = await first(device);
            for (const { x, dy, results } of steps) {
              const input = put(x, format);
              const forward = await syncBatchRenormForward(state, input, effects, { rmax, dmax });
              const { saved, output } = forward;
              const back = await syncBatchRenormBackward(saved, put(dy, "channelsFirst"), effects);
              const vectors = await group.allGather(Float64Array.from([
                ...await device.download(back.gradWeight!),
                ...await device.download(back.gradBias!),
              ]));
              const total = vectors.reduce((a, b) => a.map((v, i) => v + b[i]));
              const slackOf = (dtype: DType) => {
                const slack = 16 * kit.ulps * EPSILON[dtype];
                return { absolute: slack, relative: slack };
              };
              const what = `${dtype} ${format} ${cuts}`;
              for (const [is, name] of [[output, "y"], [back.gradInput, "dx"]] as const) {
                const wanted = await toArray(device, put(results[name], format));
                assertClose(await toArray(device, is), wanted, slackOf(dtype), `${name} ${what}`);
              }
              const parameters = [...results.dweight, ...results.dbias];
              assertClose(total, parameters, slackOf(dtype), `parameters ${what}`);
              const host = await stateToHost(device, state = forward.state);
              const close = slackOf("float32");
              assertClose(host.runningMean!, results.runningMean, close, `mean ${what}`);
              assertClose(host.runningVar!, results.runningVar, close, `variance ${what}`);
              assertClose(await device.download(saved.r), results.r, close, `r ${what}`);
              assertClose(await device.download(saved.d), results.d, close, `d ${what}`);
            }
          });
        }
      }
    }
  });

  test("bounds of 1 and 0 are batch normalization; a ramp opens with the counter", async (device) => {
    const state = initBatchNorm(device, 2, { momentum: 0.5, affine: false });
    const x = tensor(device, normalArray(12, 3, 5, 2), [6, 2]);
    const plain = batchNormForward(state, x, { device }, { activation: "relu" });
    const { device: counted, alive } = census(device);
    const options = { rmax: 1, dmax: 0, activation: "relu" } as const;
    const same = await batchRenormForward(state, x, { device: counted }, options);
    assert.equal(alive(), 8, "output, moments, running statistics, r, d, weight, bias");
    assert.deepEqual(await toArray(device, same.output), await toArray(device, plain.output));
    const dy = tensor(counted, normalArray(12, 4), [6, 2]);
    const before = alive();
    const back = batchRenormBackward(same.saved, dy, { device: counted });
    assert.equal(alive() - before, 1);
    assert.deepEqual([back.gradWeight, back.gradBias], [null, null]);
    const ramp = { rule: "ramp", from: 1, to: 3, begin: 1, end: 3 } as const;
    let moving = state;
    const seen: number[] = [];
    for (let t = 1; t <= 4; t++) {
      const wide = tensor(device, normalArray(12, 3, 0, 1000), [6, 2]);
      const bounds = { rmax: ramp, dmax: 0, updateRunningStats: false };
      const { saved } = await batchRenormForward(moving, wide, { device }, bounds);
      seen.push((await device.download(saved.r))[0]);
      moving = { ...moving, numBatchesTracked: t };
    }
    assert.deepEqual(seen, [1, 2, 3, 3]);
  });

  test("an empty batch of all ranks leaves the state; one value, no statistics, and impossible bounds are refused", async (device) => {
    const state = initBatchNorm(device, 2);
    const bounds = { rmax: 3, dmax: 5 };
    const none = tensor(device, [], [0, 2]);
    await runRanks(2, async (group) => {
      const forward = await syncBatchRenormForward(state, none, { device, group }, bounds);
      assert.equal(forward.state, state);
      const back = await syncBatchRenormBackward(forward.saved, none, { device, group });
      assert.deepEqual(await device.download(back.gradWeight!), new Float32Array(2));
    });
    const one = tensor(device, [1, 2], [1, 2]);
    await assert.rejects(batchRenormForward(state, one, { device }, bounds), /more than 1 value/);
    const untracked = initBatchNorm(device, 2, { trackRunningStats: false });
    const two = tensor(device, [1, 2, 3, 4], [2, 2]);
    const rejects = (options: object, text: RegExp) =>
      assert.rejects(batchRenormForward(state, two, { device }, options as typeof bounds), text);
    await assert.rejects(
      batchRenormForward(untracked, two, { device }, bounds),
      /must track running/,
    );
    await rejects({ rmax: 0.5, dmax: 1 }, /rmax must be finite and >= 1/);
    await rejects({ rmax: 1, dmax: -1 }, /dmax must be finite and >= 0/);
    await rejects({ dmax: 1 }, /rmax must be finite/);
    const ramp = { rule: "ramp", from: 1, to: 3, begin: 5, end: 5 };
    await rejects({ rmax: ramp, dmax: 1 }, /end of rmax must be an integer >= 6/);
    await rejects({ rmax: { ...ramp, steps: 1 }, dmax: 1 }, /rmax of rule "ramp" may have/);
    await assert.rejects(
      runRanks(2, (group) => {
        const own = group.rank === 0 ? two : undefined as unknown as typeof two;
        return syncBatchRenormForward(state, own, { device, group }, bounds);
      }),
      /the input must be a tensor/,
    );
    await assert.rejects(
      batchRenormForward(state, two, { device }, undefined as never),
      /options must be a record/,
    );
    const plain = batchNormForward(state, two, { device });
    assert.throws(
      () => batchRenormBackward(plain.saved as never, two, { device }),
      /saved must be that of batchRenormForward/,
    );
    await runRanks(2, async (group) => {
      const { saved } = await syncBatchNormForward(state, two, { device, group });
      await assert.rejects(syncBatchRenormBackward(saved as never, two, { device, group }));
    });
  });
}
