/**
 * What synchronising adds to a training step of the demo's network: the same replicas with batch norm over each one's
 * own images, and over those of all.
 *
 * @module
 */

import { planRuns } from "../../examples/compare.ts";
import { type Digits, readDigits } from "../../examples/digits.ts";
import { hostLayers } from "../../examples/host_layers.ts";
import { inProcessRunner, type Runner, workerRunner } from "../../examples/runners.ts";
import { referenceDevice } from "../../mod.ts";
import type { StepRow } from "./measured.ts";
import { type Family, launch, type MissingPeer, run, whyFailed } from "./peers.ts";

/** How many replicas train for how long. */
export interface TrainingOptions {
  readonly ranks: number;
  /** Images per replica. */
  readonly batch: number;
  /** Steps of one run. */
  readonly steps: number;
  /** Runs of each kind, in turns; the median counts. */
  readonly rounds: number;
}

/** Milliseconds per step. */
export type StepTimes = Pick<StepRow, "local" | "sync">;

/** The demo's images. */
export async function demoDigits(): Promise<Digits> {
  return await readDigits(
    await Deno.readFile(new URL("../../examples/digits.bin.gz", import.meta.url)),
  );
}

/**
 * Times the steps of replicas.
 *
 * @param runner who runs them
 * @param digits the images
 * @param options how many, for how long
 * @returns the medians
 */
export async function stepTimes(
  runner: Runner,
  digits: Digits,
  { ranks, batch, steps, rounds }: TrainingOptions,
): Promise<StepTimes> {
  const { runs } = planRuns(digits.training.count, {
    replicas: ranks,
    batch,
    epochs: 1000,
    stopAfter: steps,
    seed: 1,
  });
  const none = { exams: new Set<number>([steps]), snapshots: new Set<number>() };
  const times = { local: [] as number[], sync: [] as number[] };
  for (let round = 0; round < rounds; round++) {
    for (const norm of ["local", "sync"] as const) {
      const { task } = runs[norm];
      if (task === null) throw new RangeError("Cannot time local batch norm of one image");
      const { msPerStep } = await runner({ ...task, ...none });
      times[norm].push(msPerStep);
    }
  }
  const median = (list: number[]) => list.sort((a, b) => a - b)[list.length >> 1];
  return { local: median(times.local), sync: median(times.sync) };
}

/** What was measured, and what is missing. */
export interface Steps {
  readonly steps: readonly StepRow[];
  readonly missing: readonly MissingPeer[];
}

/**
 * Times the steps on every kind of group.
 *
 * @param options how many replicas, for how long
 * @returns a row per group
 */
export async function measureSteps(options: TrainingOptions): Promise<Steps> {
  const digits = await demoDigits();
  const { ranks } = options;
  const steps: StepRow[] = [];
  const missing: MissingPeer[] = [];
  const layers = hostLayers(referenceDevice());
  const inOneThread = await stepTimes(inProcessRunner(layers, digits), digits, options);
  steps.push({ group: "one thread", ranks, ...inOneThread });
  const onWorkers = await stepTimes(workerRunner("reference", digits), digits, options);
  steps.push({ group: "workers", ranks, ...onWorkers });
  for (const [family, group] of [["openmpi", "Open MPI"], ["mpich", "MPICH"]] as const) {
    try {
      steps.push({ group, ranks, ...await onMpi(family, options) });
    } catch (error) {
      missing.push({ subject: `demo, ${group}`, ranks, missing: (error as Error).message });
    }
  }
  return { steps, missing };
}

const SECONDS = 120;

async function onMpi(family: Family, options: TrainingOptions): Promise<StepTimes> {
  const cores = navigator.hardwareConcurrency;
  if (family === "mpich" && options.ranks > cores) {
    throw new Error(`MPICH's ranks never yield: there are only ${cores} cores`);
  }
  const module = decodeURIComponent(new URL("mpi_training.ts", import.meta.url).pathname);
  const permissions = ["--allow-ffi", "--allow-env", "--allow-read"];
  const order = JSON.stringify(options);
  const deno = [Deno.execPath(), "run", "--no-check", ...permissions, module, order];
  const finished = await run(launch(family, options.ranks, deno, { NO_COLOR: "1" }), SECONDS);
  if ("missing" in finished) throw new Error(finished.missing);
  if (finished.code !== 0) throw new Error(whyFailed(finished));
  return JSON.parse(finished.stdout.trim().split("\n").at(-1) ?? "");
}
