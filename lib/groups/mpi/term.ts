/**
 * How long a call has been going on, by the time in which this process itself ran: a rank that was stopped, or busy with
 * something else, must not blame others for it.
 */

import { awakeClock, paceOf } from "../../patience.ts";

/** Looks are far closer together than that: what is longer was spent asleep, or on something else. */
const LONGEST_STEP_MS = 50;
/** A rank that did not look for this long was busy itself, and gets as much time again before it blames others. */
const BUSY_MS = 20;
/** But not for ever. */
const EXCUSED_MS = 400;

/** The time of a rank's calls. */
export type Term = ReturnType<typeof createTerm>;

/** Makes the time of a rank's calls, one after the other. */
export function createTerm(timeoutMs: number) {
  const now = awakeClock(Math.min(LONGEST_STEP_MS, paceOf(timeoutMs).mostMs));
  let [began, since, deadline] = [0, 0, 0];
  /** When somebody looked last, by the clock on the wall. */
  let seen = 0;
  const wasBusy = (wall: number): boolean => wall - seen > BUSY_MS;
  return {
    now,
    wasBusy,
    /** The turn of a call has come. */
    begin: (): number => {
      began = since = now();
      seen = performance.now();
      deadline = began + timeoutMs;
      return began;
    },
    /** A request of the call was posted. */
    post: (): void => void (since = now()),
    /** How long ago that was. */
    ageMs: (at: number): number => at - since,
    /** How long the call has had its turn. */
    waitedMs: (at: number): number => at - began,
    /** Looks whether the time is up. */
    isUp: (at: number): boolean => {
      const wall = performance.now();
      if (wasBusy(wall) && at < began + timeoutMs + EXCUSED_MS) {
        deadline = Math.max(deadline, at + BUSY_MS);
      }
      seen = wall;
      return at > deadline;
    },
  };
}
