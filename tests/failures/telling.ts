/** A rank that tells what it has seen as soon as it has, whatever becomes of its group after that. */

import type { ProcessGroup } from "../../mod.ts";
import { fail, type Outcome, type Plan } from "./scenarios.ts";

/** What a worker tells whoever started it, who answers. */
export interface Told {
  readonly rank: number;
  readonly outcomes: readonly Outcome[];
}

/** How long to wait for the answer, in ms: a worker that ends before may take its words with it. */
const PATIENCE_MS = 5000;

interface Scope {
  readonly postMessage: (message: Told) => void;
  readonly addEventListener: (type: "message", listener: () => void) => void;
}

/** Runs the plan and tells what came of it. */
export async function tell(group: ProcessGroup, plan: Plan): Promise<void> {
  const outcomes = await fail(group, plan);
  const scope = globalThis as unknown as Scope;
  await new Promise<void>((resolve) => {
    setTimeout(resolve, PATIENCE_MS);
    scope.addEventListener("message", resolve);
    scope.postMessage({ rank: group.rank, outcomes });
  });
}
