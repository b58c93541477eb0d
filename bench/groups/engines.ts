/**
 * The process groups of this library, timed as their peers are: workers by each way to wait and to reach each other, MPI
 * by each library, with and without its agreement checks.
 *
 * @module
 */

import { type SpawnOptions, spawnWorkers } from "../../lib/groups/workers.ts";
import type { LoopLine, LoopOptions } from "./loop.ts";
import { type Family, type GroupRow, launch, type MissingPeer, run, whyFailed } from "./peers.ts";

/** What is timed. */
export interface EngineOptions {
  readonly ranks: readonly number[];
  readonly lengths: readonly number[];
  readonly rounds?: number;
  readonly milliseconds?: number;
}

/** The rows of the engines, and what is missing. */
export interface Engines {
  readonly rows: readonly GroupRow[];
  readonly missing: readonly MissingPeer[];
}

/** One kind of group with one combine. */
interface Subject {
  readonly subject: string;
  readonly time: (ranks: number, options: LoopOptions) => Promise<readonly LoopLine[]>;
  /** Why it cannot run with so many ranks; null where it can. */
  readonly refuses: (ranks: number) => string | null;
}

/** How the engines' rows are called. */
export const nameOf = (engine: string, combine: LoopOptions["combine"]): string =>
  `syncbn, ${engine}, ${combine}`;

const SECONDS = 90;

function workers(name: string, options: SpawnOptions<LoopOptions>): Subject {
  const module = new URL("worker_rank.ts", import.meta.url);
  return {
    subject: name,
    refuses: () => null,
    time: async (ranks, parameter) => {
      const [lines] = await spawnWorkers<LoopOptions, LoopLine[]>(module, ranks, {
        ...options,
        parameter,
      });
      return lines;
    },
  };
}

function mpi(name: string, family: Family, checked: boolean): Subject {
  const module = decodeURIComponent(new URL("mpi_rank.ts", import.meta.url).pathname);
  const permissions = ["--allow-ffi", "--allow-env"];
  const cores = navigator.hardwareConcurrency;
  return {
    subject: `${name}${checked ? "" : ", unchecked"}`,
    refuses: (ranks) =>
      family === "mpich" && ranks > cores
        ? `MPICH's ranks never yield: ${ranks} need as many cores, there are ${cores}`
        : null,
    time: async (ranks, options) => {
      const order = JSON.stringify({ ...options, checked });
      // With as many ranks as cores V8's own threads would take the other rank's.
      const flags = ["--no-check", "--v8-flags=--single-threaded", ...permissions];
      const deno = [Deno.execPath(), "run", ...flags, module, order];
      const finished = await run(launch(family, ranks, deno, { NO_COLOR: "1" }), SECONDS);
      if ("missing" in finished) throw new Error(finished.missing);
      if (finished.code !== 0) throw new Error(whyFailed(finished));
      const told = JSON.parse(finished.stdout.trim().split("\n").at(-1) ?? "");
      if (told.ranks !== ranks) throw new Error(`each rank is in a world of ${told.ranks}`);
      return told.lines;
    },
  };
}

const SUBJECTS: readonly Subject[] = [
  workers("workers, blocking", { transport: "shared", wait: "block" }),
  workers("workers", { transport: "shared" }),
  workers("workers over ports", { transport: "port" }),
  mpi("Open MPI", "openmpi", true),
  mpi("Open MPI", "openmpi", false),
  mpi("MPICH", "mpich", true),
  mpi("MPICH", "mpich", false),
];

/**
 * Measures the engines, one after the other.
 *
 * @param options what is timed
 * @returns a row per engine, combine, number of ranks and length; and what is missing, with the reason
 */
export async function measureEngines(
  { ranks: worlds, lengths, rounds = 9, milliseconds = 20 }: EngineOptions,
): Promise<Engines> {
  const rows: GroupRow[] = [];
  const missing: MissingPeer[] = [];
  for (const { subject: engine, refuses, time } of SUBJECTS) {
    for (const ranks of worlds) {
      for (const combine of ["sum", "combineMoments"] as const) {
        const subject = nameOf(engine, combine);
        const refused = refuses(ranks);
        if (refused !== null) {
          missing.push({ subject, ranks, missing: refused });
          continue;
        }
        const fit = lengths.filter((length) => combine === "sum" || length % 2 === 1);
        try {
          const lines = await time(ranks, { lengths: fit, combine, rounds, milliseconds });
          for (const { length, median, fastest } of lines) {
            rows.push({ subject, ranks, length, microseconds: { median, fastest } });
          }
        } catch (error) {
          missing.push({ subject, ranks, missing: (error as Error).message });
        }
      }
    }
  }
  return { rows, missing };
}
