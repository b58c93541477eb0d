/** Failures among processes: a rank is killed by SIGKILL, and the launcher may end the others. */

import type { MpiFamily } from "../../lib/groups/mpi.ts";
import { hasMpi, launch, withFolder } from "../mpi_kit.ts";
import type { Outcome, Plan, Soak } from "./scenarios.ts";
import type { Subject, Trial } from "./subject.ts";

const RANK = new URL("./mpi_rank.ts", import.meta.url).href;
const PERMISSIONS = [
  "--allow-ffi",
  "--allow-env",
  "--allow-read",
  "--allow-write",
  "--allow-run",
  "--allow-sys",
];
const SHARED_MEMORY = "/dev/shm";

function subject(family: MpiFamily, worldSize: number): Subject {
  return {
    name: family,
    restarts: isFatal,
    trial: (plan) => withFolder((folder) => trial(family, worldSize, plan, folder)),
    soak: (times) =>
      withFolder(async (folder) => {
        const order = JSON.stringify({ soak: times });
        const options = { permissions: PERMISSIONS, folder, seconds: 600 };
        const { code, stderr } = await launch(family, 2, [RANK, folder, order], options);
        if (code !== 0) throw new Error(`the launcher's code is ${code}: ${stderr}`);
        return await read<Soak>(`${folder}/outcome.0`) as Soak;
      }),
  };
}

const isFatal = (kind: string) => kind.startsWith("killed") || kind === "throws";

async function trial(
  family: MpiFamily,
  worldSize: number,
  plan: Plan,
  folder: string,
): Promise<Trial> {
  const files = new Set(list(SHARED_MEMORY));
  const begun = performance.now();
  const order = JSON.stringify({ plan });
  const { code, stderr } = await launch(family, worldSize, [RANK, folder, order], {
    permissions: PERMISSIONS,
    folder,
    seconds: 120,
  });
  const seconds = (performance.now() - begun) / 1000;
  const ranks = Array.from({ length: worldSize }, (_, rank) => rank);
  const pids = await Promise.all(ranks.map((rank) => read<number>(`${folder}/pid.${rank}`)));
  // The launcher may have told a process to end a moment before it ended itself.
  await until(() => pids.every((pid) => pid === null || !isAlive(pid)), 2000);
  const outcomes = ranks.map((rank) => read<readonly Outcome[]>(`${folder}/outcome.${rank}`));
  return {
    outcomes: await Promise.all(outcomes),
    failed: code === 0 ? null : `exit code ${code} of the launcher`,
    killedByLauncher: isFatal(plan.kind) && code !== 0,
    seconds,
    leftBehind: [
      ...pids.filter((pid) => pid !== null && isAlive(pid)).map((pid) => `process ${pid}`),
      ...list(SHARED_MEMORY).filter((name) => !files.has(name) && !isInUse(name)),
      ...(pids.includes(null) ? [`no word of a rank: ${stderr.slice(0, 500)}`] : []),
    ],
  };
}

async function read<T>(path: string): Promise<T | null> {
  try {
    return JSON.parse(await Deno.readTextFile(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

function list(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name);
  } catch (error) {
    ended(error);
    return [];
  }
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
  } catch (error) {
    return ended(error);
  }
}

/** Whether a file in shared memory belongs to some process that lives: another run may go on beside this one. */
function isInUse(name: string): boolean {
  return list("/proc").filter((pid) => /^\d+$/.test(pid)).some((pid) => {
    try {
      return Deno.readTextFileSync(`/proc/${pid}/maps`).includes(`${SHARED_MEMORY}/${name}`);
    } catch (error) {
      return ended(error);
    }
  });
}

/** False for what a process leaves that has ended meanwhile; who may not look there must not find nothing. */
function ended(error: unknown): false {
  if (error instanceof Deno.errors.NotCapable) throw error;
  return false;
}

async function until(condition: () => boolean, ms: number): Promise<void> {
  const end = performance.now() + ms;
  while (!condition() && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** The families that this machine has. MPICH's ranks never yield, and more of them than cores take very long. */
export async function mpiSubjects(): Promise<readonly Subject[]> {
  const families = ["Open MPI", "MPICH"] as const;
  const present = await Promise.all(families.map(hasMpi));
  return families.filter((_, i) => present[i]).map((family) => subject(family, 3));
}
