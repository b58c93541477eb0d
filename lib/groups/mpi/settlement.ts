/**
 * How the ranks of a broken group come to the same words for it.
 *
 * Whoever finds the group broken asks all others (query), who stop where they are and, if they are in a call, answer
 * where they stand (present). Once all have answered, or after a moment, the asking rank says what all reject with
 * (verdict). Of several that ask at once the lowest leads. Ranks that come later find question and verdict waiting.
 * Who has waited too long for a verdict on a deadline asks as well: what was answered the other alone knows, and it may just be slow.
 */

import type { CollectiveError } from "../../errors.ts";
import { fromPlain, toPlain } from "../failures.ts";
import { fit, type Mailbox, type Presence } from "./mailbox.ts";

/** How long to wait for answers: after a deadline for all to say where they stand; else for others that ask at once. */
const DEADLINE_GRACE_MS = 200;
const FAILURE_GRACE_MS = 100;
/** How often to look at least before the time counts as up: this process may have been asleep itself. */
const LOOKS = 8;
/** How long to wait for the verdict of another. */
const FOLLOWING_MS = 500;
const STAGGER_MS = 50;
/** How long to go on looking after that where looks are rare. */
const OVERTIME_MS = 200;
/** How long the verdict may take to leave. */
const LEAVING_MS = 100;

/** Prepares the end of a group. */
export function createSettlement(
  rank: number,
  worldSize: number,
  mailbox: Mailbox,
  late: (present: ReadonlyMap<number, Presence>) => CollectiveError,
) {
  const present = new Map<number, Presence>();
  const answered = new Set<number>();
  let leader: number | undefined;
  let [asked, looked, until, looks] = [0, 0, 0, 0];
  let failure: CollectiveError | undefined;
  let decided: CollectiveError | undefined;

  function follow(other: number, now: number, theirs: CollectiveError | undefined): void {
    leader = other;
    // One after the other, so that the first to lose patience can tell the next.
    until = now + FOLLOWING_MS + STAGGER_MS * (Math.min(rank, 6) - 2);
    looks = 0;
    failure = theirs;
  }

  /** Tells all others that this failure breaks the group, or, without one, that a deadline is over. */
  function ask(own: CollectiveError | undefined, now: number): void {
    leader = rank;
    failure = own;
    asked = now;
    looks = 0;
    present.clear();
    answered.clear();
    until = now + (own ? FAILURE_GRACE_MS : DEADLINE_GRACE_MS);
    const plain = own && fit(toPlain(own), worldSize);
    mailbox.sendAll({ kind: "query", from: rank, ...(plain && { failure: plain }) });
  }

  function decide(now: number): CollectiveError {
    const own = failure ?? late(present);
    const plain = fit(toPlain(own), worldSize);
    mailbox.sendAll({ kind: "verdict", from: rank, failure: plain });
    until = now + LEAVING_MS;
    return fromPlain(plain, { cause: own.cause });
  }

  function read(now: number, at: Presence | null): CollectiveError | undefined {
    for (let alarm = mailbox.receive(); alarm; alarm = mailbox.receive()) {
      switch (alarm.kind) {
        case "verdict":
          return fromPlain(alarm.failure);
        case "present":
          answered.add(alarm.from);
          if (alarm.at) {
            // It was there that long when it answered, which was after the last look.
            const since = Math.max(0, looked - asked);
            present.set(alarm.from, { ...alarm.at, waitedMs: alarm.at.waitedMs - since });
          }
          break;
        case "query":
          mailbox.send(alarm.from, { kind: "present", from: rank, at });
          if (leader === undefined || alarm.from < leader) {
            follow(alarm.from, now, alarm.failure && fromPlain(alarm.failure));
          }
      }
    }
  }

  return {
    /** Whether somebody has found the group broken: nothing may go on. */
    begun: (): boolean => leader !== undefined,
    propose: ask,
    patrol: (now: number, at: Presence | null): CollectiveError | undefined => {
      if (!decided) {
        if (leader !== undefined) mailbox.catchUp();
        const verdict = read(now, at);
        looked = now;
        if (verdict || leader === undefined) return verdict;
        looks++;
        const timeIsUp = now >= until && (looks > LOOKS || now >= until + OVERTIME_MS);
        if (!timeIsUp && !(leader === rank && answered.size === worldSize - 1)) return;
        if (leader !== rank && !failure) return void ask(undefined, now);
        decided = decide(now);
      }
      return mailbox.flushed() || now > until ? decided : undefined;
    },
  };
}
