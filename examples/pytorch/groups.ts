/**
 * Where the ranks of the examples come from; what they do is the same.
 *
 * @module
 */

import { MpiError, type MpiGroup, mpiGroup } from "../../lib/groups/mpi.ts";
import { spawnWorkers } from "../../lib/groups/workers.ts";
import { type ProcessGroup, runRanks } from "../../mod.ts";
import { startError } from "../start_error.ts";
import { bothExamples, type SeenExamples } from "./both.ts";

/** What all ranks have seen. */
export interface Shown {
  /** What the ranks are, in words. */
  readonly called: string;
  /** What each has seen, in rank order. */
  readonly ranks: readonly SeenExamples[];
}

/** Runs the examples for a shape; null where another process shows what came of it. */
export type Runner = (shape: readonly number[]) => Promise<Shown | null>;

/** Where the ranks are: tasks of one thread, workers, processes. */
export type GroupName = "in-process" | "workers" | "mpi";

/** Ranks by the name of their group. */
export const RUNNERS: Readonly<Record<GroupName, Runner>> = {
  "in-process": async (shape) => ({
    called: "4 tasks of one thread",
    ranks: await runRanks(4, (world) => bothExamples(world, shape)),
  }),

  "workers": async (shape) => {
    await checkWorkers();
    const rank = new URL("./worker_rank.ts", import.meta.url);
    const options = { parameter: shape };
    return {
      called: "4 workers",
      ranks: await spawnWorkers<typeof shape, SeenExamples>(rank, 4, options),
    };
  },

  "mpi": async (shape) => {
    const group = await join();
    try {
      const ranks = await gather(group, await bothExamples(group, shape));
      const called = `${group.worldSize} processes (${group.family})`;
      await group.close();
      return group.rank === 0 ? { called, ranks } : null;
    } catch (error) {
      console.error(error);
      return group.abort();
    }
  },
};

/** Deno asks for a permission to read what workers load, other than for a program's own modules. */
async function checkWorkers(): Promise<void> {
  for (const path of ["../../mod.ts", "../../lib", ".."]) {
    const { state } = await Deno.permissions.query({
      name: "read",
      path: new URL(path, import.meta.url),
    });
    if (state === "granted") continue;
    throw startError(
      "--group workers must be allowed to read the modules of its workers: " +
        "run deno with --allow-read=examples,lib,mod.ts",
    );
  }
}

async function join(): Promise<MpiGroup> {
  const group = started();
  if (group.worldSize > 1) return group;
  await group.close();
  throw startError("--group mpi must be run by mpirun, -n 2 or more: current number is 1");
}

function started(): MpiGroup {
  try {
    return mpiGroup();
  } catch (cause) {
    if (!(cause instanceof MpiError)) throw cause;
    throw startError(`--group mpi must have MPI: ${cause.message}`, { cause });
  }
}

/** What each rank brings, for all: as text, since collectives carry numbers of one length. */
async function gather<T>(group: ProcessGroup, own: T): Promise<readonly T[]> {
  const bytes = new TextEncoder().encode(JSON.stringify(own));
  const lengths = await group.allGather(Float64Array.of(bytes.length), { label: "lengths" });
  const padded = new Float64Array(Math.max(...lengths.map(([length]) => length)));
  padded.set(bytes);
  const all = await group.allGather(padded, { label: "texts" });
  return all.map((text, rank) =>
    JSON.parse(new TextDecoder().decode(Uint8Array.from(text.subarray(0, lengths[rank][0]))))
  );
}
