/**
 * Training in workers: one for the one process, and one for each replica, each with a device of its own.
 *
 * @module
 */

import { spawnWorkers } from "../../../lib/groups/workers.ts";
import type { Plan } from "../../compare.ts";
import type { Digits } from "../../digits.ts";
import type { DeviceName } from "../../flags.ts";
import { HEARD, type Order, type Told } from "./messages.ts";

/** How long the others wait for a replica that says nothing, in ms of their own time. */
const PATIENCE_MS = 8000;
/** The same on WebGPU, which may be software that takes half a minute to compile its kernels. */
const PATIENCE_WEBGPU_MS = 60_000;
/** How often the replicas tell what their batch norms are given. */
const LOOKS = 60;

/** What it takes to train. */
export interface Training {
  readonly plan: Plan;
  readonly device: DeviceName;
  readonly digits: Digits;
  /** Address of the workers' module. */
  readonly rank: URL;
  /** Called with what a worker tells, until all have ended. */
  readonly onTold: (told: Told) => void;
  /** Ends all workers. */
  readonly signal: AbortSignal;
}

/**
 * Trains the four runs of a plan, and returns once all have ended; then no worker is left.
 *
 * @throws (rejects with) the error of the first worker that failed; the signal's reason
 */
export async function trainInWorkers(training: Training): Promise<void> {
  const { plan, device, digits, rank, onTold } = training;
  const { one, sync, local, none } = plan.runs;
  const [whole, shared] = [one.task, sync.task];
  if (!whole || !shared) throw new Error("Cannot train as a plan must have its first runs");
  const steps = Array.from({ length: LOOKS }, (_, i) => Math.ceil(plan.steps * (i + 1) / LOOKS));
  const looks = { steps: new Set([1, 2, 3, ...steps]), images: whole.batches[0] };
  const tasks = {
    sync: shared,
    ...(local.task && { local: local.task }),
    ...(none.task && { none: none.task }),
  };

  // Whichever group fails takes the other with it.
  const over = new AbortController();
  const end = () => over.abort(training.signal.reason);
  if (training.signal.aborted) end();
  training.signal.addEventListener("abort", end, { once: true });
  const start = (): Worker => {
    const worker = new Worker(rank, { type: "module" });
    worker.addEventListener("message", ({ data }: MessageEvent<Told | string>) => {
      if (typeof data !== "object" || over.signal.aborted) return;
      if (data.kind === "finished") worker.postMessage(HEARD);
      else onTold(data);
    });
    return worker;
  };
  const group = async (size: number, order: Pick<Order, "tasks" | "looks">): Promise<void> => {
    const parameter: Order = { device, digits, ...order };
    const timeoutMs = device === "webgpu" ? PATIENCE_WEBGPU_MS : PATIENCE_MS;
    const options = { parameter, timeoutMs, signal: over.signal };
    try {
      await spawnWorkers<Order, void>(start, size, options);
    } catch (error) {
      over.abort(error);
      throw error;
    }
  };
  try {
    await Promise.all([
      group(1, { tasks: { one: whole }, looks: null }),
      group(plan.replicas, { tasks, looks }),
    ]);
  } finally {
    training.signal.removeEventListener("abort", end);
    over.abort();
  }
}
