/**
 * The demo as one of several processes that `mpirun` has started.
 *
 * @module
 */

import { type MpiGroup, mpiGroup } from "../lib/groups/mpi.ts";
import { planRuns } from "./compare.ts";
import { demonstrate } from "./demonstrate.ts";
import { noAdapter, openPlace, openWasm, type Place } from "./devices.ts";
import type { Digits } from "./digits.ts";
import { DEMO, type DeviceName, type RunCommand } from "./flags.ts";
import { sentenceOf } from "./run_program.ts";
import { inProcessRunner, rankRunner } from "./runners.ts";
import { startError } from "./start_error.ts";

/** Rank 0 trains alone before the replicas do; the others wait for it meanwhile. */
const WAITING_MS = 3_600_000;
/** A launcher that is told to end all may drop what it has not passed on yet. */
const PASSING_ON_MS = 200;

/**
 * Takes part as a replica; rank 0 also trains as one process, shows everything and judges.
 *
 * @param command what to run
 * @param digits the images
 * @returns the exit code; on an error this process, and with it all, end instead
 * @throws (rejects with) a start error where MPI is not there
 */
export async function joinRanks(command: RunCommand, digits: Digits): Promise<number> {
  const group = join();
  try {
    const code = await takePart(group, command, digits);
    await group.close();
    return code;
  } catch (error) {
    const sentence = sentenceOf(DEMO, error);
    console.error(sentence ?? error);
    await new Promise((resolve) => setTimeout(resolve, PASSING_ON_MS));
    return group.abort(sentence === undefined ? 1 : 2);
  }
}

function join(): MpiGroup {
  try {
    return mpiGroup({ timeoutMs: WAITING_MS });
  } catch (cause) {
    throw startError(`--group mpi must have MPI: ${(cause as Error).message}`, { cause });
  }
}

async function takePart(
  group: MpiGroup,
  { device, exact, options, progress }: RunCommand,
  digits: Digits,
): Promise<number> {
  await using place = await openEverywhere(group, device, exact);
  const plan = planRuns(digits.training.count, options);
  return await place.onLayers(async (layers) => {
    const replicas = rankRunner(layers, digits, group);
    if (group.rank === 0) {
      const one = inProcessRunner(layers, digits);
      return await demonstrate({ one, replicas }, {
        ...{ digits, plan, exact, device: place.title },
        ...{ group: "mpi", replicas: `processes (${group.library})` },
        bar: progress === "bar",
      });
    }
    for (const { by, task } of Object.values(plan.runs)) {
      if (by === "replicas" && task) await replicas(task);
    }
    return 0;
  });
}

/** What was asked for; with `"auto"` a GPU on every rank, or on none. */
async function openEverywhere(
  group: MpiGroup,
  device: DeviceName,
  exact: boolean,
): Promise<Place> {
  const place = await openPlace(device, exact);
  const found = await group.allGather(
    Float64Array.of(place?.device === "webgpu" ? 1 : 0),
    { label: "devices" },
  );
  const without = found.findIndex(([one]) => one === 0);
  if (place === null || (device === "webgpu" && without >= 0)) {
    await place?.[Symbol.asyncDispose]();
    // Rank 0 says it for all, and ends them.
    if (group.rank > 0) await group.barrier({ label: "the end" });
    throw noAdapter(`rank ${without}`);
  }
  if (place.device !== "webgpu" || without < 0) return place;
  await place[Symbol.asyncDispose]();
  return await openWasm(`rank ${without} has no hardware GPU`);
}
