/**
 * How a group in shared memory breaks down: once, in the words of whoever was first, which all ranks read alike.
 */

import { CollectiveError, type CollectiveErrorCode } from "../../errors.ts";
import { type Area, brokenWord, GROUP, roundOf } from "./area.ts";
import { isTenant } from "./arena.ts";

/**
 * Breaks a group. Nobody waits for anybody here: who finds the group broken writes down why in a place of his own, and
 * one word says whose words hold.
 */
export function breakDown(area: Area, error: CollectiveError, only?: number): boolean {
  const { group, claims, reasons } = area;
  if (Atomics.load(group, GROUP.round) < 0) return false;
  const reason = reasons.findIndex((_, i) => Atomics.compareExchange(claims, i, 0, 1) === 0);
  // Taken by ranks that ended with it; who waits comes back to it.
  if (reason < 0) return false;
  reasons[reason].write(written(error));
  for (;;) {
    const round = Atomics.load(group, GROUP.round);
    if (round < 0 || (only !== undefined && round !== only) || !isTenant(area)) {
      Atomics.store(claims, reason, 0);
      return false;
    }
    const broken = brokenWord(round, reason);
    if (Atomics.compareExchange(group, GROUP.round, round, broken) === round) break;
  }
  wake(area);
  return true;
}

/** Reads why a broken group is broken: the same text on every rank, also on the one that wrote it. */
export function breakdownOf({ group, reasons }: Area, options?: ErrorOptions): CollectiveError {
  const text = reasons[roundOf(Atomics.load(group, GROUP.round)).reason].read();
  const [head] = text.split("\n", 1);
  const [code, ranks] = head.split(" ");
  const message = text.slice(head.length + 1);
  const atFault = ranks === "" ? [] : ranks.split(",").map(Number);
  return new CollectiveError(message, code as CollectiveErrorCode, atFault, options);
}

/** Wakes all ranks that sleep in a group. */
export function wake({ group }: Area): void {
  Atomics.add(group, GROUP.wake, 1);
  Atomics.notify(group, GROUP.wake);
}

/** What is cut off at the end of a long text is of the message. */
function written({ code, ranks, message }: CollectiveError): string {
  return `${code} ${ranks.join()}\n${message}`;
}
