/** The law of the trainer on TensorFlow.js's CPU and Wasm backends: k ranks in one thread are one, in every kind of model. */

import assert from "node:assert/strict";
import { referenceDevice, runRanks } from "../../mod.ts";
import { wasmDevice } from "../../kernels/wasm_device.ts";
import { loadTfjs } from "./trainer_tfjs.ts";
import { difference, type Plan, trainPlain, trainRank } from "./trainer_runs.ts";
import { SPECS } from "./trainer_models.ts";

const tf = await loadTfjs("cpu");
const devices = [referenceDevice(), await wasmDevice()];
for (const device of devices.slice(1)) {
for (const optimizer of ["sgd", "momentum", "adam"] as const)
for (const name of (Object.keys(SPECS) as Plan["name"][]).filter((n) => n !== "convolutions")) {
  for (const batches of [[[8]], [[5,3],[1,7]], [[3,0,4],[0,4,4],[2,3,1]], [[2,2,2,2]]]) {
  const plan: Plan = { name, optimizer, batches, steps: 20 };
  const t0 = performance.now();
  const plain = SPECS[name].plain ? await trainPlain(tf, plan) : (await runRanks(1, (group) => trainRank(tf, {...plan, batches: batches.map((c) => [c.reduce((a,b)=>a+b,0)])}, { device: device as any, group, rank: 0})))[0];
  const t1 = performance.now();
  const ranks = await runRanks(batches[0].length, (group) => trainRank(tf, plan, { device: device as any, group, rank: group.rank }));
  const t2 = performance.now();
  const d = difference(plain, ranks[0]);
  console.log(device.info.name.slice(0,9), name, optimizer, batches[0].length, d.steps.toExponential(1), d.weights.toExponential(1), ranks.map((r) => difference(r, ranks[0]).weights === 0), ranks.map((r) => r.leaked), (t1-t0).toFixed(0), (t2-t1).toFixed(0));
  }
}
}
