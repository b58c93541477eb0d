/** A worker that does a task of `ranks.ts`; its name is the address of the module that has it. */

import { serveRank } from "../lib/groups/workers.ts";
import type { ProcessGroup } from "../mod.ts";

export interface WorkerTask {
  readonly name: string;
  readonly parameter: unknown;
}

const { name: module } = globalThis as unknown as { readonly name: string };
const bodies: Record<string, (group: ProcessGroup, parameter: unknown) => unknown> = await import(
  module
);
serveRank((group, { name, parameter }: WorkerTask) => bodies[name](group, parameter));
