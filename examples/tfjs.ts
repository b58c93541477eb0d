/**
 * `deno task demo:tfjs`: a network of TensorFlow.js on 4 workers learns what one process learns; the chart is the demo's.
 *
 * @module
 */

import { spawnWorkers } from "../lib/groups/workers.ts";
import { chart } from "./chart.ts";
import { on, type Program } from "./command_line.ts";
import { type Comparison, FIRST_STEPS, type Name, type Result } from "./compare.ts";
import { type Images, readDigits, SIDE } from "./digits.ts";
import { LARGEST_DIFFERENCE, percent } from "./report.ts";
import { runProgram } from "./run_program.ts";
import type { Order } from "./tfjs_rank.ts";
import type { Run } from "./train.ts";

interface Options {
  readonly quick: boolean;
}

const PROGRAM: Program<Options> = {
  usage: "deno task demo:tfjs",
  action: "train",
  about: "Trains a network of TensorFlow.js on digits: on 4 workers, beside one process.",
  flags: { quick: on("20 steps on some of the digits, to see that it works") },
  notes: "Draws out/tfjs.svg. Exits with 1 if the workers learn anything else than one process.",
};

const [REPLICAS, PER_REPLICA] = [4, 4];
const batch = REPLICAS * PER_REPLICA;

const firstOf = ({ pixels, labels }: Images, count: number): Images => ({
  ...{ count, pixels: pixels.slice(0, count * SIDE ** 2), labels: labels.slice(0, count) },
});

async function main({ quick }: Options): Promise<number> {
  const all = await readDigits(await Deno.readFile(new URL("./digits.bin.gz", import.meta.url)));
  const digits = quick
    ? { training: firstOf(all.training, 10 * batch), test: firstOf(all.test, 5 * batch) }
    : all;
  const epochs = quick ? 2 : 5;

  /** Trains as many replicas as workers, and holds the first against a run. */
  const perform = async (
    ...[name, title, workers, norm, other]: [Name, string, number, Order["norm"], Run?]
  ): Promise<{ readonly run: Run; readonly result: Result }> => {
    console.log(`${title} ...`);
    const parameter: Order = { digits, epochs, batch, norm };
    const worker = new URL("./tfjs_rank.ts", import.meta.url);
    const [run] = await spawnWorkers<Order, Run>(worker, workers, { wait: "block", parameter });
    const apart = (a: Float32Array, b: Float32Array) =>
      a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
    const distances = [...run.snapshots].map(([step, parameters]) => ({
      ...{ step, largest: apart(parameters, other?.snapshots.get(step) ?? parameters) },
    }));
    return { run, result: { name, title, distances, exams: run.exams, msPerStep: run.msPerStep } };
  };

  const { run, result: one } = await perform("one", `one process, batch ${batch}`, 1, "plain");
  const shape = `${REPLICAS} x ${PER_REPLICA}`;
  const ranks = (name: "sync" | "local", title: string) =>
    perform(name, `${title}, ${shape}`, REPLICAS, name, run);
  const { result: sync } = await ranks("sync", "syncbn");
  const { result: local } = await ranks("local", "local batch norm");
  const missing = (name: Name): Result => ({ ...local, name, exams: [], distances: [] });
  const steps = one.exams[one.exams.length - 1].step;
  const comparison: Comparison = {
    ...{ replicas: REPLICAS, batch: PER_REPLICA, epochs, stopAfter: Infinity, seed: 0 },
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
  return early(sync) <= LARGEST_DIFFERENCE ? 0 : 1;
}

Deno.exit(await runProgram(PROGRAM, Deno.args, main));
