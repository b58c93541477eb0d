/**
 * A worker that serves any task of the suites: what tests hand to spawnWorkers(). Its name is the address of the module
 * that has the task, which is loaded before the rank begins, so that no deadline has to wait for it.
 */

import { serveRank } from "../lib/groups/workers.ts";
import type { ProcessGroup } from "../mod.ts";

/** Which export of the module, and what it is given. */
export interface WorkerTask {
  readonly name: string;
  readonly parameter: unknown;
}

/** Starts the worker of a module. */
export function startWorker(module: string): Worker {
  return new Worker(import.meta.url, { type: "module", name: module });
}

/** The same from one file, which a program makes of the module: see bundled.ts. */
export function bundledWorker(module: string): string {
  return `import { serve } from "${import.meta.url}"; import * as bodies from "${module}"; serve(bodies);`;
}

type Bodies = Readonly<Record<string, (group: ProcessGroup, parameter: unknown) => unknown>>;

/** Serves a task of a module. */
export function serve(bodies: Bodies): void {
  serveRank((group, { name, parameter }: WorkerTask) => bodies[name](group, parameter));
}

if ("WorkerGlobalScope" in globalThis) {
  const { name: module } = globalThis as unknown as { readonly name: string };
  if (module.includes(":")) serve(await import(module));
}
