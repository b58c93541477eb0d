/** The law of the trainer on TensorFlow.js's CPU and Wasm backends: k ranks in one thread are one, for every kind of model. */

import assert from "node:assert/strict";
import { type WasmArray, wasmDevice } from "../../kernels/wasm_device.ts";
import { spawnWorkers } from "../../lib/groups/workers.ts";
import { type Device, type ReferenceArray, referenceDevice, runRanks } from "../../mod.ts";
import { assertLaw } from "./trainer_assert.ts";
import { loadTf } from "./tfjs_load.ts";
import { census } from "../recording.ts";
import { SPECS, type Tfjs } from "./trainer_models.ts";
import { type Outcome, type Plan, trainPlain, trainRank } from "./trainer_runs.ts";
import type { Order } from "./trainer_worker.ts";

/** Trains by ranks in this thread. */
function ranksOf<A>(tf: Tfjs, device: Device<A>, plan: Plan): Promise<Outcome[]> {
  return runRanks(
    plan.batches[0].length,
    (group) => trainRank(tf, plan, { device, group, rank: group.rank }),
  );
}

/** Trains by TensorFlow.js or, what it cannot train, by one rank. */
async function oneOf<A>(tf: Tfjs, device: Device<A>, plan: Plan): Promise<Outcome> {
  if (SPECS[plan.name].plain) return await trainPlain(tf, plan);
  const batches = plan.batches.map((counts) => [counts.reduce((sum, count) => sum + count)]);
  return (await ranksOf(tf, device, { ...plan, batches }))[0];
}

async function checkLaw<A>(tf: Tfjs, device: Device<A>, plan: Plan): Promise<void> {
  assertLaw(await oneOf(tf, device, plan), await ranksOf(tf, device, plan));
}

/** Rows of one, two, three and four ranks: uneven ones, and ranks that have none. */
const BATCHES = {
  one: [[8], [7]],
  two: [[5, 3], [1, 7]],
  three: [[3, 0, 4], [0, 4, 4], [2, 3, 1]],
  four: [[2, 2, 2, 2], [1, 0, 4, 3]],
};

const devices: readonly [Device<ReferenceArray>, Device<WasmArray>] = [
  referenceDevice(),
  await wasmDevice(),
];
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
  ["timed", "sgd", "three"],
  ["within", "momentum", "two"],
  ["within", "sgd", "four"],
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

Deno.test("trainers on wasm in workers are one, over a group that does not block", async () => {
  const all: readonly Plan[] = [
    { name: "maps", optimizer: "adam", batches: [[3, 5], [8, 0]], steps: 20 },
    { name: "timed", optimizer: "momentum", batches: [[6, 2], [1, 7]], steps: 20 },
    { name: "within", optimizer: "sgd", batches: [[6, 2], [1, 7]], steps: 20 },
    { name: "odd", optimizer: "sgd", batches: [[5, 3], [0, 7]], steps: 20 },
  ];
  const worker = new URL("./trainer_worker.ts", import.meta.url);
  const parameter: Order = { backend: "wasm", plans: all };
  const ranks = await spawnWorkers<Order, Outcome[]>(worker, 2, { parameter });
  const tf = await loadTf("wasm");
  for (const [i, plan] of all.entries()) {
    assertLaw(await oneOf(tf, devices[1], plan), ranks.map((own) => own[i]));
  }
});

Deno.test("trainer: 200 steps leave no tensor, and no array of the device", async () => {
  const tf = await loadTf("cpu");
  // The smallest of the models; of each of the others assertLaw() counts the tensors of 20 steps.
  const plan = { name: "timed", optimizer: "sgd", batches: BATCHES.two, steps: 200 } as const;
  const { device, alive } = census(referenceDevice());
  const outcomes = await runRanks(
    2,
    (group) => trainRank(tf, plan, { device, group, rank: group.rank }),
  );
  assert.deepEqual(outcomes.map(({ leaked }) => leaked), [0, 0]);
  assert.equal(alive(), 0);
});
