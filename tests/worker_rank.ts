/** A worker that serves any task of the suites: what tests hand to spawnWorkers(). */

import { serveRank } from "../lib/groups/workers.ts";

/** Which task, and what it is given. */
export interface WorkerTask {
  readonly module: string;
  readonly name: string;
  readonly parameter: unknown;
}

serveRank(async (group, { module, name, parameter }: WorkerTask) => {
  const { [name]: body } = await import(module);
  return await body(group, parameter);
});
