/** A worker of a user who starts workers without spawnWorkers(): takes a seat, sums, and does what it is told next. */

import { workerGroup, type WorkerSeat } from "../../lib/groups/workers.ts";
import { CollectiveError, sum } from "../../mod.ts";

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<{ seat: WorkerSeat; wait: "async" | "block" }>) => void;
  postMessage: (message: unknown) => void;
};

/** Said at the end of loading, which no deadline should have to wait for. */
queueMicrotask(() => scope.postMessage("ready"));

scope.onmessage = async ({ data: { seat, wait } }) => {
  const { rank, allReduce } = workerGroup(seat, { wait });
  const [total] = await allReduce(Float64Array.of(rank + 1), sum);
  scope.postMessage(total);
  if (rank === 1) return; // To be terminated in what the others take for the next call.
  try {
    await allReduce(Float64Array.of(1), sum, { label: "second" });
  } catch (error) {
    if (!(error instanceof CollectiveError)) throw error;
    const { code, ranks, message } = error;
    scope.postMessage({ code, ranks, message });
  }
};
