/**
 * What synchronizing adds to a training step of a ResNet-50's 53 batch norms: one rank alone, and two ranks at once, in workers
 * and under MPI.
 *
 * @module
 */

import { spawnWorkers } from "../../lib/groups/workers.ts";
import { runRanks } from "../../mod.ts";
import { type Family, launch, type MissingPeer, run, whyFailed } from "../groups/peers.ts";
import { type StepOptions, type StepTimes, timeSteps } from "./step.ts";

/** Steps of one kind of group. Without another rank, to synchronize is not to communicate. */
export interface SyncRow extends StepTimes {
  readonly group: string;
  readonly ranks: number;
}

/** What was measured, and what is missing. */
export interface SyncCosts {
  readonly rows: readonly SyncRow[];
  readonly missing: readonly MissingPeer[];
}

const RANKS = 2;
const SECONDS = 300;

/**
 * Times the steps on every kind of group that the machine has.
 *
 * @param options what is timed
 * @returns a row per group
 */
export async function measureSync(options: StepOptions): Promise<SyncCosts> {
  const rows: SyncRow[] = [];
  const missing: MissingPeer[] = [];
  const attempt = async (group: string, ranks: number, time: () => Promise<StepTimes>) => {
    try {
      rows.push({ group, ranks, ...await time() });
    } catch (error) {
      missing.push({
        subject: `53 batch norms, ${group}`,
        ranks,
        missing: (error as Error).message,
      });
    }
  };
  await attempt("alone", 1, async () => {
    const [times] = await runRanks(1, (group) => timeSteps(group, options));
    return times;
  });
  await attempt("workers", RANKS, async () => {
    const module = new URL("worker_rank.ts", import.meta.url);
    const [times] = await spawnWorkers<StepOptions, StepTimes>(module, RANKS, {
      parameter: options,
      timeoutMs: 1000 * SECONDS,
    });
    return times;
  });
  await attempt("Open MPI", RANKS, () => onMpi("openmpi", options));
  await attempt("MPICH", RANKS, () => onMpi("mpich", options));
  return { rows, missing };
}

async function onMpi(family: Family, options: StepOptions): Promise<StepTimes> {
  const module = decodeURIComponent(new URL("mpi_rank.ts", import.meta.url).pathname);
  // With as many ranks as cores V8's own threads would take the other rank's.
  const flags = ["--no-check", "--v8-flags=--single-threaded", "--allow-ffi", "--allow-env"];
  const deno = [Deno.execPath(), "run", ...flags, module, JSON.stringify(options)];
  const finished = await run(launch(family, RANKS, deno, { NO_COLOR: "1" }), SECONDS);
  if ("missing" in finished) throw new Error(finished.missing);
  if (finished.code !== 0) throw new Error(whyFailed(finished));
  return JSON.parse(finished.stdout.trim().split("\n").at(-1) ?? "");
}
