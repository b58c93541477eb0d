/** Groups of workers as the suites see them: each way to reach each other, each way to wait. */

import { type SpawnOptions, spawnWorkers } from "../lib/groups/workers.ts";
import type { GroupKit } from "./kit.ts";
import type { Tier } from "./tier.ts";
import type { WorkerTask } from "./worker_rank.ts";
import { createCrew } from "./workers/crew.ts";

/** Of all kits: how ranks meet and wait is a matter of their seats. */
const CREW = createCrew();

function kit(
  name: string,
  options: SpawnOptions<WorkerTask>,
  tier: Tier = "quick",
): GroupKit {
  return {
    ...{ name, tier },
    ...(options.wait === "block" ? { blocks: true } : {}),
    costlyStart: 8,
    run: async <P, R>(
      worldSize: number,
      task: { readonly module: string; readonly name: string },
      parameter: P,
      { timeoutMs }: { readonly timeoutMs?: number } = {},
    ): Promise<R[]> =>
      await CREW.lend(
        worldSize,
        task.module,
        (start) =>
          spawnWorkers<WorkerTask, R>(start, worldSize, {
            ...options,
            ...(timeoutMs ? { timeoutMs } : {}),
            parameter: { name: task.name, parameter },
          }),
      ),
  };
}

/** Shared memory, waiting without holding up the thread. */
export const sharedKit = kit("workers", { transport: "shared" });
/** Shared memory, waiting blocked. */
export const blockingKit = kit("blocking workers", { transport: "shared", wait: "block" }, "full");
/** Shared memory with room for two numbers at a time: all travels in pieces. */
export const piecesKit = kit(
  "workers with small desks",
  { transport: "shared", capacity: 2 },
  "full",
);
/** A port each. */
export const portsKit = kit("workers over ports", { transport: "port" }, "full");
/** Ports over which all travels two numbers at a time. */
export const portPiecesKit = kit(
  "workers over ports in pieces",
  { transport: "port", capacity: 2 },
  "full",
);
/** Both: shared memory with small desks, waiting blocked. */
export const blockingPiecesKit = kit(
  "blocking workers with small desks",
  { transport: "shared", capacity: 2, wait: "block" },
  "full",
);
