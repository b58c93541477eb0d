/**
 * Worlds of ranks under a launcher, each of which does one task after the other: to start a rank takes a process, a runtime and
 * MPI, ten times as long as most tasks. A task has the first ranks of a world to itself, as a group that is split from it; what
 * breaks such a group leaves the world whole.
 */

import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import { CollectiveError } from "../../mod.ts";
import type { MpiOptions } from "../../lib/groups/mpi.ts";
import { bundled } from "../bundled.ts";
import type { RankTask } from "../kit.ts";
import { find, leave, type Order, programOf, type Report } from "../mpi_rank.ts";
import type { Launched } from "../mpi_kit.ts";
import { TASK_MODULES } from "../tasks.ts";

/** Options of a task's group. */
export interface Wanted extends MpiOptions {
  /** A world of its own, which ends with the task: for what asks for a group that MPI begins with. */
  readonly whole?: boolean;
}

/** Runs tasks on ranks of worlds that it starts as they are wanted. */
export interface Worlds {
  readonly run: <P, R>(
    ranks: number,
    task: RankTask<P, R>,
    parameter: P,
    wanted?: Wanted,
  ) => Promise<R[]>;
  /** Ends all ranks; rejects unless they end well, or by their own word where a group of theirs has broken. */
  readonly close: () => Promise<void>;
}

/** Starts ranks of a program with a folder. */
type Launch = (
  worldSize: number,
  script: readonly string[],
  folder: string,
) => Promise<Launched>;

/** A world. */
interface World {
  readonly run: (order: Order) => Promise<unknown[]>;
  readonly close: (anyhow?: boolean) => Promise<void>;
  readonly over: () => boolean;
}

/** Every module with tasks: ranks load them all, once. */
const MODULES = [
  ...TASK_MODULES,
  ...["./tasks.ts", "./long_tasks.ts"].map((path) => new URL(path, import.meta.url).href),
];

/** Sizes of worlds: of two ranks, which have a core each, or of more; and of those with options of their own. */
const [SIZES, UNUSUAL] = [[2, 4, 8], [4, 8]];
/** Worlds at a time; ranks of one more would be too much for a machine's memory. */
const MOST = 4;
/** A little less than the deadline of whoever waits for a rank that is gone. */
const DEFAULTS: MpiOptions = { timeoutMs: 20_000 };
/** How often to look for reports, in ms, and how long to wait for the others' where one is a failure. */
const [LOOK_MS, PATIENCE_MS] = [3, 300];

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/**
 * Makes what runs tasks.
 *
 * @param launch starts the ranks
 * @param across whether they are on several hosts: then each task has a world of its own, whose end is not judged, since over
 * TCP a rank of MPICH may stay in MPI_Finalize until its alarm (seen on a busy machine)
 */
export function createWorlds(launch: Launch, across = false): Worlds {
  /** By size and options; the one that was used last is the last. */
  const worlds = new Map<string, World>();

  async function worldOf(worldSize: number, options: MpiOptions): Promise<World> {
    const key = JSON.stringify([worldSize, options]);
    const known = worlds.get(key);
    worlds.delete(key);
    const [oldest] = worlds;
    if (!known && worlds.size >= MOST) {
      worlds.delete(oldest[0]);
      await oldest[1].close();
    }
    const isOver = known?.over() ?? true;
    if (isOver) await known?.close();
    const world = isOver ? await startWorld(launch, worldSize, options) : known!;
    worlds.set(key, world);
    return world;
  }

  return {
    run: async <P, R>(
      ranks: number,
      { module, name }: RankTask<P, R>,
      parameter: P,
      { whole = across, ...wanted }: Wanted = {},
    ) => {
      const options = { ...DEFAULTS, ...definedOf(wanted) };
      const order = { module, name, parameter, ranks, whole };
      if (!whole) {
        const sizes = isDeepStrictEqual(options, DEFAULTS) ? SIZES : UNUSUAL;
        const size = sizes.find((size) => size >= ranks)!;
        return await (await worldOf(size, options)).run(order) as R[];
      }
      const world = await startWorld(launch, ranks, options);
      try {
        return await world.run(order) as R[];
      } finally {
        await world.close(across);
      }
    },
    close: async () => {
      const open = [...worlds.values()];
      worlds.clear();
      await Promise.all(open.map(({ close }) => close()));
    },
  };
}

function definedOf(options: MpiOptions): MpiOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

async function startWorld(launch: Launch, worldSize: number, options: MpiOptions): Promise<World> {
  const folder = await Deno.makeTempDir({ prefix: "syncbn_mpi_" });
  leave(folder, "options", options);
  leave(folder, "tests", Deno.pid);
  const launching = launch(worldSize, [await bundled(programOf(MODULES)), folder], folder);
  let launched: Launched | undefined;
  let isSpoilt = false;
  const ended = launching.then((how) => void (launched = how));
  let turn = 0;

  const reportsOf = async (turn: number, ranks: number): Promise<(Report | undefined)[]> => {
    for (let failedAt = Infinity;;) {
      const isOver = launched !== undefined || performance.now() > failedAt + PATIENCE_MS;
      const reports = Array.from(
        { length: ranks },
        (_, rank) => find<Report>(folder, `report.${turn}.${rank}`),
      );
      if (isOver || !reports.includes(undefined)) return reports;
      if (reports.some((report) => report && "message" in report)) {
        failedAt = Math.min(failedAt, performance.now());
      }
      await Promise.race([pause(LOOK_MS), ended]);
    }
  };
  /** How each rank ended. MPICH's launcher may be gone before a rank that it has told to end. */
  const endsOf = async (): Promise<(string | undefined)[]> => {
    for (const until = performance.now() + PATIENCE_MS;; await pause(LOOK_MS)) {
      const ends = Array.from(
        { length: worldSize },
        (_, rank) => find<string>(folder, `end.${rank}`),
      );
      if (!ends.includes(undefined) || performance.now() > until) return ends;
    }
  };
  return {
    run: async (order) => {
      const own = turn++;
      leave(folder, `order.${own}`, order);
      const reports = await reportsOf(own, order.ranks);
      isSpoilt ||= reports.includes(undefined);
      return resultsOf(reports, launched);
    },
    close: async (anyhow = false) => {
      leave(folder, `order.${turn++}`, null);
      await ended;
      const ends = await endsOf();
      await remove(folder);
      if (anyhow || isSpoilt) return; // Of the latter its test has told.
      const { code, stderr } = launched!;
      const endedWell = code === 0 && ends.every((end) => end === "");
      const gaveUp = code !== 0 &&
        ends.some((end) => /must be intact, one of \d ranks/.test(end ?? ""));
      assert(endedWell || gaveUp, `${JSON.stringify(options)}: ${code}, ${ends}, ${stderr}`);
    },
    over: () => isSpoilt || launched !== undefined,
  };
}

/** Removes a folder, in which a rank that ends late may still write a file. */
async function remove(folder: string): Promise<void> {
  for (const until = performance.now() + PATIENCE_MS;; await pause(LOOK_MS)) {
    try {
      return await Deno.remove(folder, { recursive: true });
    } catch (error) {
      if (performance.now() > until) throw error;
    }
  }
}

function resultsOf(
  reports: readonly (Report | undefined)[],
  launched: Launched | undefined,
): unknown[] {
  const failures = reports.flatMap((report) => report && "message" in report ? [report] : []);
  const [first] = failures.sort((a, b) => a.at - b.at);
  if (first) {
    const { name, message, code, ranks } = first;
    throw code && ranks
      ? new CollectiveError(message, code, ranks)
      : Object.assign(new Error(message), { name });
  }
  return reports.map((report, rank) => {
    if (report && "result" in report) return report.result;
    const { code, stderr } = launched!;
    throw new Error(`rank ${rank} left no report; the launcher's code is ${code}: ${stderr}`);
  });
}
