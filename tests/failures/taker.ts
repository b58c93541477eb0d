/** A worker that takes a seat, as another one may at the same time, and takes it once more. */

import { workerGroup, type WorkerSeat } from "../../lib/groups/workers.ts";
import { sum } from "../../mod.ts";

/** What came of it. */
export interface Taking {
  /** The total of 1 + rank over two ranks; null for who did not get the seat. */
  readonly total: number | null;
  /** What the taker was told who came too late. */
  readonly refusals: readonly string[];
}

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<{ readonly seat: WorkerSeat }>) => void;
  readonly postMessage: (message: Taking | "ready") => void;
};

queueMicrotask(() => scope.postMessage("ready"));

scope.onmessage = async ({ data: { seat } }) => {
  const refusals: string[] = [];
  const groups = [1, 2].flatMap(() => {
    try {
      return [workerGroup(seat)];
    } catch (error) {
      refusals.push(`${(error as Error).name}: ${(error as Error).message}`);
      return [];
    }
  });
  const totals = await Promise.all(
    groups.map(({ rank, allReduce }) => allReduce(Float64Array.of(1 + rank), sum)),
  );
  scope.postMessage({ total: totals[0]?.[0] ?? null, refusals });
};
