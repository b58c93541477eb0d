/**
 * How many threads a team can have.
 *
 * @module
 */

import { mayBlock, sharesMemory } from "../../../lib/threads.ts";

/** Says why a team has one thread here, whatever is asked for. */
export function whyOneThread(): string | null {
  if (!sharesMemory()) {
    return "threads may not share memory: serve the page with Cross-Origin-Opener-Policy: same-origin and " +
      "Cross-Origin-Embedder-Policy: require-corp";
  }
  if (!mayBlock()) return "this thread may not wait: open the device in a worker";
  return null;
}
