/** Failures among workers: rank 1's worker is terminated where a process would be killed. */

import { type SpawnOptions, spawnWorkers } from "../../lib/groups/workers.ts";
import { startWorker, type WorkerTask } from "../worker_rank.ts";
import type { KillMe, Outcome, Plan, Soak } from "./scenarios.ts";
import type { Subject, Trial } from "./subject.ts";
import type { Told } from "./telling.ts";

const SCENARIOS = new URL("./scenarios.ts", import.meta.url).href;
const TELLING = new URL("./telling.ts", import.meta.url).href;
const WORLD = 3;

function subject(name: string, options: SpawnOptions<WorkerTask>): Subject {
  return {
    name,
    restarts: (kind) => kind.startsWith("killed") || kind === "throws",
    trial: (plan) => trial(options, plan),
    soak: async (times) => {
      const [first] = await spawnWorkers<WorkerTask, Soak>(() => startWorker(SCENARIOS), 2, {
        ...options,
        parameter: { name: "soak", parameter: { times } },
      });
      return first;
    },
  };
}

async function trial(
  options: SpawnOptions<WorkerTask>,
  plan: Plan,
): Promise<Trial> {
  const threads = countThreads();
  const outcomes: (readonly Outcome[] | null)[] = new Array(WORLD).fill(null);
  // What a rank saw comes back even where its group has failed: spawnWorkers() itself would only throw.
  const start = (): Worker => {
    const worker = startWorker(TELLING);
    worker.addEventListener("message", ({ data }: MessageEvent<KillMe | Told | string>) => {
      if (typeof data === "string") return;
      if ("kill" in data) setTimeout(() => worker.terminate(), data.afterMs);
      else {
        outcomes[data.rank] = data.outcomes;
        worker.postMessage("heard");
      }
    });
    return worker;
  };
  const begun = performance.now();
  const error = await spawnWorkers<WorkerTask, unknown>(start, WORLD, {
    ...options,
    timeoutMs: plan.timeoutMs,
    parameter: { name: "tell", parameter: plan },
  }).then(() => null, (error) => error as Error);
  const seconds = (performance.now() - begun) / 1000;
  // Deno gives a worker two seconds before it ends it by force.
  await until(() => countThreads() <= threads, 5000);
  const left = countThreads() - threads;
  return {
    outcomes,
    failed: error?.message ?? null,
    seconds,
    leftBehind: left > 0 ? [`${left} workers`] : [],
  };
}

/** Threads of this process that run workers. */
function countThreads(): number {
  let count = 0;
  for (const { name } of Deno.readDirSync("/proc/self/task")) {
    try {
      if (Deno.readTextFileSync(`/proc/self/task/${name}/comm`).startsWith("worker-")) count++;
    } catch (error) {
      if (error instanceof Deno.errors.NotCapable) throw error; // Others have ended meanwhile.
    }
  }
  return count;
}

async function until(condition: () => boolean, ms: number): Promise<void> {
  const end = performance.now() + ms;
  while (!condition() && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Every way for workers to reach each other and to wait. */
export const workerSubjects: readonly Subject[] = [
  subject("workers", { transport: "shared" }),
  subject("workers, blocking", { transport: "shared", wait: "block" }),
  subject("workers over ports", { transport: "port" }),
];
