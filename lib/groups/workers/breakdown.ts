/**
 * How a group in shared memory breaks down: once, in the words of whoever was first, which all ranks read alike.
 *
 * @module
 */

import { CollectiveError, type CollectiveErrorCode } from "../../errors.ts";
import { type Area, GROUP } from "./arena.ts";

/** Somebody who has not written down within this time why the group breaks has ended meanwhile. */
const WRITING_MS = 1000;

/**
 * Breaks a group.
 *
 * @param area the group's memory
 * @param error why
 * @param only the round that it is about, where it is about one: once decided it stands, and the group goes on
 * @returns whether it was this that broke the group
 */
export function breakDown(area: Area, error: CollectiveError, only?: number): boolean {
  const { group, breakdown } = area;
  const patience = performance.now() + WRITING_MS;
  while (Atomics.compareExchange(group, GROUP.breaking, 0, 1) !== 0) {
    if (Atomics.load(group, GROUP.round) < 0) return false;
    if (performance.now() > patience) break;
  }
  breakdown.write(written(error));
  for (;;) {
    const round = Atomics.load(group, GROUP.round);
    if (round < 0) return false;
    if (only !== undefined && round !== only) {
      Atomics.store(group, GROUP.breaking, 0);
      return false;
    }
    // Negative for broken, and still telling which round was under way.
    if (Atomics.compareExchange(group, GROUP.round, round, ~round) === round) break;
  }
  wake(area);
  return true;
}

/**
 * Reads why a broken group is broken: the same text on every rank, also on the one that wrote it.
 *
 * @param area the group's memory
 * @param options `cause`, on the rank that has it
 * @returns the error
 */
export function breakdownOf({ breakdown }: Area, options?: ErrorOptions): CollectiveError {
  const text = breakdown.read();
  const [head] = text.split("\n", 1);
  const [code, ranks] = head.split(" ");
  const message = text.slice(head.length + 1);
  const atFault = ranks === "" ? [] : ranks.split(",").map(Number);
  return new CollectiveError(message, code as CollectiveErrorCode, atFault, options);
}

/**
 * Wakes all ranks that sleep in a group.
 *
 * @param area the group's memory
 */
export function wake({ group }: Area): void {
  Atomics.add(group, GROUP.wake, 1);
  Atomics.notify(group, GROUP.wake);
}

/** What is cut off at the end of a long text is of the message. */
function written({ code, ranks, message }: CollectiveError): string {
  return `${code} ${ranks.join()}\n${message}`;
}
