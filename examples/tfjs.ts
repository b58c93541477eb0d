/**
 * `deno task demo:tfjs`: a network of TensorFlow.js on 4 workers learns what one process learns; the chart is the demo's.
 *
 * @module
 */

import { spawnWorkers } from "../lib/groups/workers.ts";
import { chart } from "./chart.ts";
import { type Comparison, FIRST_STEPS, type Name, type Result } from "./compare.ts";
import { readDigits } from "./digits.ts";
import { LARGEST_DIFFERENCE, percent } from "./report.ts";
import type { Order } from "./tfjs_rank.ts";
import type { Run } from "./train.ts";

const [REPLICAS, PER_REPLICA, EPOCHS] = [4, 4, 5];
const batch = REPLICAS * PER_REPLICA;
const digits = await readDigits(await Deno.readFile(new URL("./digits.bin.gz", import.meta.url)));

/** Trains as many replicas as workers, and holds the first against a run. */
async function perform(
  ...[name, title, workers, norm, other]: [Name, string, number, Order["norm"], Run?]
): Promise<{ readonly run: Run; readonly result: Result }> {
  console.log(`${title} ...`);
  const parameter: Order = { digits, epochs: EPOCHS, batch, norm };
  const worker = new URL("./tfjs_rank.ts", import.meta.url);
  const [run] = await spawnWorkers<Order, Run>(worker, workers, { wait: "block", parameter });
  const apart = (a: Float32Array, b: Float32Array) =>
    a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
  const distances = [...run.snapshots].map(([step, parameters]) => ({
    ...{ step, largest: apart(parameters, other?.snapshots.get(step) ?? parameters) },
  }));
  return { run, result: { name, title, distances, exams: run.exams, msPerStep: run.msPerStep } };
}

const { run, result: one } = await perform("one", `one process, batch ${batch}`, 1, "plain");
const shape = `${REPLICAS} x ${PER_REPLICA}`;
const { result: sync } = await perform("sync", `syncbn, ${shape}`, REPLICAS, "sync", run);
const { result: local } = await perform(
  "local",
  `local batch norm, ${shape}`,
  REPLICAS,
  "local",
  run,
);
const missing = (name: Name): Result => ({ ...local, name, exams: [], distances: [] });
const steps = one.exams[one.exams.length - 1].step;
const comparison: Comparison = {
  ...{ replicas: REPLICAS, batch: PER_REPLICA, epochs: EPOCHS, stopAfter: Infinity, seed: 0 },
  ...{ steps, planned: steps },
  results: { one, sync, local, control: missing("control"), none: missing("none") },
};
const early = ({ distances }: Result) =>
  Math.max(...distances.filter(({ step }) => step <= FIRST_STEPS).map(({ largest }) => largest));
for (const result of [one, sync, local]) {
  const { title, exams, msPerStep } = result;
  console.log(
    `${title}: ${percent(exams[exams.length - 1].accuracy)} % of the test images, ` +
      `${early(result).toExponential(1)} from one process in the first ${FIRST_STEPS} steps, ` +
      `${msPerStep.toFixed(0)} ms per step`,
  );
}
await Deno.mkdir("out", { recursive: true });
await Deno.writeTextFile("out/tfjs.svg", chart(comparison));
Deno.exit(early(sync) <= LARGEST_DIFFERENCE ? 0 : 1);
