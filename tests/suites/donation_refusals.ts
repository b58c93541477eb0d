/** What cannot be given up, and that nothing is freed then. */

import assert from "node:assert/strict";
import {
  applyLayer,
  backwardLayer,
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  CollectiveError,
  type Device,
  freeze,
  inferLayer,
  initBatchNorm,
  initLayer,
  initLazyLayer,
  runRanks,
  sum,
  syncBatchNormBackward,
  syncBatchNormForward,
  type Tensor,
  tensor,
} from "../../mod.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { normalArray } from "../random.ts";
import { census } from "../recording.ts";

/** Registers the tests of donations that are errors for a device. */
export function donationRefusals<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("donate must be a boolean, and nothing is given up where it is not true", async (device) => {
    const state = initBatchNorm(device, 3);
    const layer = initLayer(device, "batchNorm", 3);
    const x = batchOf(device, 1);
    const { saved } = batchNormForward(state, x, { device });
    const applied = await applyLayer(layer, x, { device });
    const frozen = await applyLayer(freeze(layer), x, { device });
    const calls: ((given: Tensor<A>, options: { donate?: boolean }) => unknown)[] = [
      (given, options) => batchNormInfer(state, given, { device }, options),
      (given, options) => batchNormBackward(saved, given, { device }, options),
      (given, options) => batchNormInferBackward(state, x, given, { device }, options),
      (given, options) => inferLayer(layer, given, { device }, options),
      (given, options) => backwardLayer(applied.saved, given, { device }, options),
      (given, options) => backwardLayer(frozen.saved, given, { device }, options),
    ];
    const given = batchOf(device, 2);
    for (const call of calls) {
      for (const donate of [1, "true", null, {}] as unknown as boolean[]) {
        await rejects(
          () => call(given, { donate }),
          TypeError,
          /^Cannot .* as donate must be true, false or left out: current value is (1|"true"|null|of)/,
        );
      }
      for (const options of [{}, { donate: undefined }, { donate: false }]) {
        await call(given, options);
        assert(device.owns(given.data));
      }
    }
  });

  test("what the same call borrows cannot be given up", async (device) => {
    const state = initBatchNorm(device, 3);
    const { weight, bias, runningMean, runningVar } = state;
    const x = batchOf(device, 1);
    const other = batchOf(device, 2);
    const relu = { activation: "relu" } as const;
    const { saved } = batchNormForward(state, x, { device }, relu);
    const frozen = await applyLayer(freeze(initLayer(device, "batchNorm", 3)), x, { device });
    const [donate, effects] = [{ donate: true }, { device }];
    // Tensors of the same array are the same array, whatever else they say.
    const again = (tensor: Tensor<A>): Tensor<A> => ({ ...tensor, format: "channelsLast" });
    const row = (data: A | null) => {
      assert(data !== null);
      return { data, shape: [1, 3], dtype: "float32", format: "channelsFirst" } as const;
    };
    const refused: [() => unknown, string][] = [
      [() => batchNormInfer(state, x, effects, { residual: again(x), ...donate }), "residual"],
      [() => batchNormInfer(state, row(weight), effects, donate), "weight"],
      [() => batchNormInfer(state, row(bias), effects, donate), "bias"],
      [() => batchNormInfer(state, row(runningMean), effects, donate), "running mean"],
      [() => batchNormInfer(state, row(runningVar), effects, donate), "running variance"],
      [() => batchNormBackward(saved, again(x), effects, donate), "input"],
      [
        () => batchNormBackward(saved, saved.output ?? x, effects, donate),
        "output",
      ],
      [() => batchNormInferBackward(state, x, again(x), effects, donate), "input"],
      [
        () => batchNormInferBackward(state, x, other, effects, { residual: other, ...donate }),
        "residual",
      ],
      [
        () => batchNormInferBackward(state, row(bias), row(weight), effects, donate),
        "weight",
      ],
      [() => backwardLayer(frozen.saved, x, effects, donate), "input"],
    ];
    for (const [call, what] of refused) {
      await rejects(
        call,
        TypeError,
        new RegExp(
          "^Cannot .* as a donated (input|gradOutput) must be nothing else that the call needs: " +
            `current array is that of the ${what} too$`,
        ),
      );
    }
    for (const array of [weight, bias, runningMean, runningVar, x.data, other.data]) {
      assert(device.owns(array));
    }
    assert(device.owns(saved.output?.data));
  });

  test("a training forward cannot be given its input, which backward needs", async (device) => {
    const state = initBatchNorm(device, 3);
    const layer = initLayer(device, "batchNorm", 3);
    const synced = { ...layer, processGroup: "world" };
    const x = batchOf(device, 1);
    const wrong =
      /^Cannot .* as training must keep its input, which backward needs: current value of donate is .+; donate gradOutput to backward, or the input to evaluation$/;
    const counted = census(device);
    await runRanks(1, async (world) => {
      const effects = { device: counted.device, groups: { world }, group: world };
      for (const donate of [true, "yes", null]) {
        const options: object = { donate };
        const local = { device: counted.device };
        const calls = [
          () => batchNormForward(state, x, local, options),
          () => syncBatchNormForward(state, x, { ...local, group: world }, options),
          () => applyLayer(layer, x, effects, options),
          () => applyLayer(synced, x, effects, options),
          () => applyLayer(freeze(layer), x, effects, options),
          () => applyLayer(initLazyLayer("batchNorm"), x, effects, options),
        ];
        for (const call of calls) await rejects(call, TypeError, wrong);
      }
    });
    assert.equal(counted.alive(), 0);
    assert(device.owns(x.data));
    const kept: object = { donate: false };
    assert.deepEqual(batchNormForward(state, x, { device }, kept).output.shape, x.shape);
  });

  test("what one rank cannot give up is its error on all, and frees nothing on any", async (device) => {
    const state = initBatchNorm(device, 3);
    const synced = initLayer(device, "batchNorm", 3, { processGroup: "world" });
    const x = batchOf(device, 1);
    await runRanks(2, async (world) => {
      const effects = { device, group: world, groups: { world } };
      const { saved } = await syncBatchNormForward(state, x, { device, group: world });
      const applied = await applyLayer(synced, x, { device, groups: { world } });
      const dy = batchOf(device, 2);
      const short = tensor(device, normalArray(6, 1), [2, 3]);
      // What rank 1 does wrong; rank 0 is right to give its array up.
      const odd = <T>(right: T, wrong: unknown) => world.rank === 1 ? wrong as T : right;
      const donate = { donate: true };
      const calls: [() => Promise<unknown>, RegExp][] = [
        [
          () => syncBatchNormBackward(saved, dy, effects, odd(donate, { donate: 1 })),
          /donate must be true, false or left out: current value is 1/,
        ],
        [
          () => syncBatchNormBackward(saved, odd(dy, x), effects, donate),
          /current array is that of the input too/,
        ],
        [() => syncBatchNormBackward(saved, odd(dy, short), effects, donate), /shape/],
        [
          () => backwardLayer(applied.saved, odd(dy, x), effects, donate),
          /current array is that of the input too/,
        ],
        [
          () => syncBatchNormForward(state, x, effects, odd({}, donate)),
          /training must keep its input/,
        ],
        [() => applyLayer(synced, x, effects, odd({}, donate)), /training must keep its input/],
      ];
      for (const [call, text] of calls) {
        await assert.rejects(call, (error) => {
          assert(error instanceof CollectiveError);
          assert.deepEqual([error.code, error.ranks], ["rankFailed", [1]]);
          assert(error.cause instanceof TypeError);
          assert.match(error.cause.message, text);
          return true;
        });
        for (const { data } of [dy, short, x]) assert(device.owns(data));
        await world.allReduce(Float64Array.of(1), sum, { label: "of use afterwards" });
      }
      await syncBatchNormBackward(saved, dy, effects, donate);
      assert(!device.owns(dy.data));
    });
  });

  test("an array can be given up once", async (device) => {
    const state = initBatchNorm(device, 3);
    const given = batchOf(device, 1);
    batchNormInfer(state, given, { device }, { donate: true });
    await rejects(
      () => batchNormInfer(state, given, { device }, { donate: true }),
      TypeError,
      /freed/,
    );
    // Of two calls at once the second finds it gone, whether or not it would take it too.
    const x = batchOf(device, 1);
    for (const donate of [true, false]) {
      const dy = batchOf(device, 2);
      await runRanks(2, async (group) => {
        const { saved } = await syncBatchNormForward(state, x, { device, group });
        const back = (given: Tensor<A>, donate: boolean) =>
          syncBatchNormBackward(saved, given, { device, group }, { donate });
        const own = group.rank === 0 ? dy : batchOf(device, 3);
        const [first, second] = await Promise.allSettled([back(own, true), back(own, donate)]);
        assert.deepEqual([first.status, second.status], ["fulfilled", "rejected"]);
        assert.match(String((second as PromiseRejectedResult).reason), /TypeError.*freed/);
      });
    }
  });
}

function batchOf<A>(device: Device<A>, seed: number): Tensor<A> {
  return tensor(device, normalArray(12, seed), [2, 3, 2]);
}

/** Fails unless a call, synchronous or not, fails as it must. */
async function rejects(call: () => unknown, type: ErrorConstructor, text: RegExp): Promise<void> {
  await assert.rejects(async () => await call(), (error: Error) => {
    assert(error instanceof type);
    assert.match(error.message, text);
    return true;
  });
}
