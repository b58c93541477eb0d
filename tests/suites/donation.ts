/**
 * Arrays that are given up: the same bits as of a copy that is kept, whether or not the device writes over them; freed on
 * success, and only then.
 */

import assert from "node:assert/strict";
import {
  applyLayer,
  backwardLayer,
  batch,
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  type Device,
  type DType,
  type Format,
  type ForwardOptions,
  freeze,
  inferLayer,
  initLayer,
  region,
  release,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormForward,
  tensor,
} from "../../mod.ts";
import { assertDonates, bitsOf, like, stateOf } from "../donated.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { normalArray } from "../random.ts";
import { census } from "../recording.ts";
import { donationEffects } from "./donation_effects.ts";
import { donationRefusals } from "./donation_refusals.ts";

/** Channels that no vector divides, one after the other and side by side; whole vectors; channels of one value. */
const SHAPES = [[3, 5, 4, 7], [2, 16, 9], [6, 3]] as const;
const FORMATS: readonly Format[] = ["channelsFirst", "channelsLast"];

/** Registers the tests of donation for a device. */
export function donationSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  const dtypesOf = (device: Device<A>): readonly DType[] =>
    device.info.float16 ? ["float32", "float16"] : ["float32"];

  test("evaluation of an input that is given up computes the same", async (device) => {
    for (const dtype of dtypesOf(device)) {
      for (const [x, beside] of cases(device, dtype)) {
        for (const trackRunningStats of [true, false]) {
          const state = stateOf(device, x.shape[1], trackRunningStats);
          await assertDonates(device, () => like(device, x, 1), (input, donate) => [
            batchNormInfer(state, input, { device }, { ...beside, donate }),
          ]);
        }
      }
    }
  });

  test("a gradOutput that is given up has the same gradients", async (device) => {
    for (const dtype of dtypesOf(device)) {
      for (const [x, beside] of cases(device, dtype)) {
        const state = stateOf(device, x.shape[1]);
        const { saved } = batchNormForward(state, x, { device }, beside);
        for (const format of FORMATS) {
          await assertDonates(device, () => like(device, x, 7, format), (dy, donate) => [
            batchNormBackward(saved, dy, { device }, { donate }),
          ]);
        }
      }
    }
  });

  test("a gradOutput of evaluation that is given up has the same gradients", async (device) => {
    for (const dtype of dtypesOf(device)) {
      for (const [i, [x, beside]] of cases(device, dtype).entries()) {
        const state = stateOf(device, x.shape[1], i % 3 !== 0);
        await assertDonates(device, () => like(device, x, 7, FORMATS[i >> 1 & 1]), (dy, donate) => [
          batchNormInferBackward(state, x, dy, { device }, { ...beside, donate }),
        ]);
      }
    }
  });

  test("a rank gives up its own gradOutput, whatever the others do", async (device) => {
    const state = stateOf(device, 5);
    for (const [i, format] of FORMATS.entries()) {
      await runRanks(2, async (group) => {
        const effects = { device, group };
        const shape = [2 + group.rank, 5, 7];
        const x = tensor(device, normalArray(35 * shape[0], group.rank), shape, { format });
        const options = { activation: "relu", residual: like(device, x, 3, FORMATS[1]) } as const;
        const { saved } = await syncBatchNormForward(state, x, effects, i ? options : {});
        // Two rounds: in the first only rank 1 gives its array up, in the second both do.
        for (const round of [0, 1]) {
          await assertDonates(
            device,
            () => like(device, x, 7, FORMATS[round]),
            async (dy, donate) => [
              await syncBatchNormBackward(saved, dy, effects, {
                donate: donate && group.rank >= 1 - round,
              }),
            ],
            { donates: group.rank >= 1 - round },
          );
        }
      });
    }
  });

  test("layers give up what is given to them, frozen ones too", async (device) => {
    const learning = { ...initLayer(device, "batchNorm", 5), state: stateOf(device, 5) };
    const synced = { ...learning, processGroup: "world", activation: "relu" as const };
    const layers = [learning, synced, freeze(synced), freeze(learning, { affine: true })];
    await runRanks(2, async (world) => {
      const effects = { device, groups: { world } };
      for (const layer of layers) {
        const x = tensor(device, normalArray(70, world.rank), [2, 5, 7]);
        const options = { residual: like(device, x, 3, "channelsLast") };
        const { saved } = await applyLayer(layer, x, effects, options);
        await assertDonates(device, () => like(device, x, 7), async (dy, donate) => {
          const gradients = await backwardLayer(saved, dy, effects, { donate });
          assert.equal(gradients.gradWeight === null, layer.frozen === "all");
          return [gradients];
        });
        await assertDonates(device, () => like(device, x, 1), (input, donate) => [
          inferLayer(layer, input, { device }, { ...options, donate }),
        ]);
      }
    });
  });

  const giant = kit.giants ? test : () => {};
  giant("a batch that threads would share is given up like a small one", async (device) => {
    // 180,246 elements, which no number of threads divides into whole channels.
    const shape = [2, 33, 2731];
    const x = tensor(device, normalArray(180_246, 1), shape, { format: "channelsLast" });
    const state = stateOf(device, 33);
    const beside = { activation: "relu", residual: like(device, x, 3, "channelsFirst") } as const;
    await assertDonates(device, () => like(device, x, 1), (input, donate) => [
      batchNormInfer(state, input, { device }, { ...beside, donate }),
    ]);
    const { saved } = batchNormForward(state, x, { device }, beside);
    for (const format of FORMATS) {
      await assertDonates(device, () => like(device, x, 7, format), (dy, donate) => [
        batchNormBackward(saved, dy, { device }, { donate }),
      ]);
    }
  });

  test("an empty batch is given up like any other", async (device) => {
    const state = stateOf(device, 3);
    const empty = tensor(device, [], [0, 3, 2]);
    const { saved } = batchNormForward(state, empty, { device });
    await assertDonates(device, () => like(device, empty, 7), (dy, donate) => [
      batchNormBackward(saved, dy, { device }, { donate }),
    ]);
    await assertDonates(device, () => like(device, empty, 7), (input, donate) => [
      batchNormInfer(state, input, { device }, { donate }),
    ]);
  });

  test("layers that hand one array on write over it again and again, within a batch too", async (device) => {
    const states = [1, 2, 3].map((seed) => stateOf(device, 5, true, seed));
    const x = tensor(device, normalArray(420, 1), [3, 5, 4, 7]);
    const through = (d: Device<A>, donate: boolean) => {
      let y = tensor(d, normalArray(420, 1), [3, 5, 4, 7]);
      for (const state of states) {
        const last = y;
        y = batchNormInfer(state, last, { device: d }, { activation: "relu", donate });
        if (!donate) d.free(last.data);
      }
      return y;
    };
    const back = (d: Device<A>, donate: boolean) => {
      let dy = tensor(d, normalArray(420, 2), [3, 5, 4, 7]);
      for (const state of states) {
        const { gradInput } = batchNormInferBackward(state, x, dy, { device: d }, { donate });
        if (!donate) d.free(dy.data);
        dy = gradInput;
      }
      return dy;
    };
    for (const walk of [through, back]) {
      const expected = await bitsOf(device, [walk(device, false)]);
      const counted = census(device);
      const results = [
        region(counted.device, (scope) => walk(scope, true)),
        region(counted.device, (scope) => batch(scope, (d) => walk(d, true))),
        batch(counted.device, (d) => walk(d, true)),
      ];
      for (const result of results) assert.deepEqual(await bitsOf(device, [result]), expected);
      release(device, results);
      // Gradients of weight and bias outlive a batch, not a region.
      assert.equal(counted.alive(), walk === through ? 0 : 2 * states.length);
    }
  });

  donationEffects(kit);
  donationRefusals(kit);
}

/** Batches and what follows their normalization: all of it for the first shape, for the others in turn. */
function cases<A>(device: Device<A>, dtype: DType) {
  return SHAPES.flatMap((shape, i) =>
    FORMATS.flatMap((format, j) => {
      const length = shape.reduce((product, extent) => product * extent, 1);
      const x = tensor(device, normalArray(length, 1), shape, { dtype, format });
      const activation = "relu";
      const all: readonly Pick<ForwardOptions<A>, "activation" | "residual">[] = [
        {},
        { activation },
        { activation, residual: like(device, x, 3, FORMATS[1 - j]) },
        { residual: like(device, x, 3) },
      ];
      const chosen = i === 0 ? all : [all[(2 * i + j) % 4]];
      return chosen.map((beside) => [x, beside] as const);
    })
  );
}
