/** The law of the trainer on TensorFlow.js's CPU and Wasm backends: k ranks in one thread are one, for every kind of model. */

import assert from "node:assert/strict";
import { wasmDevice } from "../../kernels/wasm_device.ts";
import { type Device, referenceDevice, runRanks } from "../../mod.ts";
import { assertLaw } from "./trainer_assert.ts";
import { loadTf } from "./tfjs_load.ts";
import { census } from "../recording.ts";
import { SPECS, type Tfjs } from "./trainer_models.ts";
import { type Plan, trainPlain, trainRank } from "./trainer_runs.ts";

/** Trains by TensorFlow.js, or by one rank what it cannot train, and by ranks; compares. */
async function checkLaw<A>(tf: Tfjs, device: Device<A>, plan: Plan): Promise<void> {
  const ranks = (plan: Plan) =>
    runRanks(
      plan.batches[0].length,
      (group) => trainRank(tf, plan, { device, group, rank: group.rank }),
    );
  const whole = plan.batches.map((counts) => [counts.reduce((sum, count) => sum + count)]);
  const [one] = SPECS[plan.name].plain
    ? [await trainPlain(tf, plan)]
    : await ranks({ ...plan, batches: whole });
  assertLaw(one, await ranks(plan));
}

/** Rows of one, two, three and four ranks: uneven ones, and ranks that have none. */
const BATCHES = {
  one: [[8], [7]],
  two: [[5, 3], [1, 7]],
  three: [[3, 0, 4], [0, 4, 4], [2, 3, 1]],
  four: [[2, 2, 2, 2], [1, 0, 4, 3]],
};

const devices = [referenceDevice(), await wasmDevice()];
const cases: [Plan["name"], Plan["optimizer"], keyof typeof BATCHES][] = [
  ["sequential", "adam", "one"],
  ["sequential", "momentum", "three"],
  ["convolutions", "sgd", "two"],
  ["convolutions", "adam", "four"],
  ["nested", "momentum", "two"],
  ["nested", "sgd", "three"],
  ["masked", "sgd", "four"],
  ["masked", "adam", "two"],
  ["maps", "momentum", "three"],
  ["odd", "adam", "two"],
  ["odd", "sgd", "three"],
  ["odd", "momentum", "four"],
];
for (const [i, [name, optimizer, ranks]] of cases.entries()) {
  const device = devices[i % 2];
  const title = `trainer on cpu: ${ranks} of ${name} by ${optimizer} are one (${device.info.name})`;
  Deno.test(title, async () => {
    const plan = { name, optimizer, batches: BATCHES[ranks], steps: 20 };
    await checkLaw(await loadTf("cpu"), device as Device<unknown>, plan);
  });
}
for (const [name, ranks] of [["maps", "two"], ["odd", "three"], ["sequential", "four"]] as const) {
  Deno.test(`trainer on wasm: ${ranks} of ${name} are one`, async () => {
    const plan = { name, optimizer: "momentum", batches: BATCHES[ranks], steps: 20 } as const;
    await checkLaw(await loadTf("wasm"), devices[1] as Device<unknown>, plan);
  });
}

Deno.test("trainer: 200 steps leave no tensor, and no array of the device", async () => {
  const tf = await loadTf("cpu");
  const plan = { name: "sequential", optimizer: "adam", batches: BATCHES.two, steps: 200 } as const;
  const { device, alive } = census(referenceDevice());
  const outcomes = await runRanks(
    2,
    (group) => trainRank(tf, plan, { device, group, rank: group.rank }),
  );
  assert.deepEqual(outcomes.map(({ leaked }) => leaked), [0, 0]);
  assert.equal(alive(), 0);
});
