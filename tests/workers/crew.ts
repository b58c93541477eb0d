/**
 * Workers that do one task after the other, each on a group of its own: to start a worker and to load the library there takes ten
 * times as long as most tasks. Those of a task that fails are ended, and others are started.
 */

import { bundled } from "../bundled.ts";
import { gathered, TASK_MODULES } from "../tasks.ts";

const SERVER = new URL("../worker_rank.ts", import.meta.url).href;
const RANK = new URL("./crew_rank.ts", import.meta.url);

/** Who is free. */
export interface Crew {
  /** Gives a body what starts the worker of each rank, ready to serve a task of the module; they are free again after it. */
  readonly lend: <T>(
    ranks: number,
    module: string,
    body: (start: (rank: number) => Worker) => Promise<T>,
  ) => Promise<T>;
}

/** Makes a crew, of nobody as yet. */
export function createCrew(): Crew {
  const free: Worker[] = [];
  return {
    lend: async (ranks, module, body) => {
      const program = await programOfTasks();
      const own = Array.from(
        { length: ranks },
        () => free.pop() ?? new Worker(RANK, { type: "module" }),
      );
      const over = new AbortController();
      try {
        const result = await body((rank) => {
          own[rank].postMessage({ program, module });
          return lent(own[rank], over.signal);
        });
        free.push(...own);
        return result;
      } catch (error) {
        own.forEach((worker) => worker.terminate());
        throw error;
      } finally {
        over.abort();
      }
    },
  };
}

/** What has `serve`, and all tasks with it; a browser is served files of the library that are one already. */
async function programOfTasks(): Promise<string> {
  if (!("Deno" in globalThis)) return SERVER;
  return await bundled(`export { serve } from "${SERVER}";\n${gathered(TASK_MODULES)}`);
}

/** A worker for the time of one task, whose listeners end with it: the worker itself goes on. */
function lent(worker: Worker, signal: AbortSignal): Worker {
  const { postMessage } = worker;
  return {
    postMessage: postMessage.bind(worker),
    addEventListener: (type: string, listener: EventListener) =>
      worker.addEventListener(type, listener, { signal }),
    terminate: () => {},
  } as Partial<Worker> as Worker;
}
