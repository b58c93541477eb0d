/** One rank's call, from the place in line to the result. */

import type { CollectiveError } from "../../errors.ts";
import type { Request } from "../engine.ts";
import { deadlineError, judge, messageOf, type Saying } from "../failures.ts";
import type { Presence } from "./mailbox.ts";
import type { Part } from "./parts.ts";
import type { Place } from "./communicators.ts";

/** A call in line. */
export interface Call {
  /** Its number among those of this rank, from 1. */
  readonly number: number;
  readonly request: Request;
  /** Hands out the result, before the next call's turn. */
  readonly finish: (result: readonly Float64Array[]) => void;
  readonly reject: (error: unknown) => void;
  /** Whether the ranks wait for each other without giving way once the values have met. */
  readonly binding: boolean;
  /** What this rank brings, once its values are there, or why it brings nothing. */
  part?: Part;
  failure?: { readonly cause: unknown };
  /** Goes on with the call that waits for this rank's values. */
  wake?: () => void;
  /** Forgets the signal. */
  forget?: () => void;
}

/** What a rank brings, as the others see it. */
export function sayingOf({ request: { name }, part, failure }: Call): Saying {
  return failure
    ? { failed: true, text: `${name}: ${messageOf(failure.cause)}` }
    : { failed: false, text: part!.text };
}

/** Code units of a failure's message that travel beside others: one may become six bytes. */
const LONGEST_MESSAGE = 200;

/** Where a rank stands that has been in a call for some time. */
export function presenceOf({ number, part, failure }: Call, waitedMs: number): Presence {
  const at = { call: number, waitedMs };
  if (failure) {
    return { ...at, state: "failed", message: messageOf(failure.cause).slice(0, LONGEST_MESSAGE) };
  }
  return { ...at, state: part ? "waiting" : "unready" };
}

/** The failure of a rank, where nobody has asked what the others bring. */
export function failedAlone(call: Call, rank: number, worldSize: number): CollectiveError {
  const sayings = Array.from({ length: worldSize }, () => ({ failed: false, text: "" }));
  sayings[rank] = sayingOf(call);
  return judge(call.number, sayings, call.failure?.cause)!;
}

/** What is known of a call whose time is up. */
export function lateOf(
  call: Call,
  present: ReadonlyMap<number, Presence>,
  { rank, worldSize }: Place,
  timeoutMs: number,
): CollectiveError {
  const { number, request: { name }, failure } = call;
  const at = new Map(present).set(rank, presenceOf(call, 0));
  const ranks = Array.from({ length: worldSize }, (_, other) => other);
  const hasCome = (there: Presence | undefined) =>
    there && (there.call > number || (there.call === number && there.waitedMs >= 0));
  const come = ranks.filter((other) => hasCome(at.get(other)));
  const inState = (state: Presence["state"]) =>
    come.filter((other) => at.get(other)?.state === state && at.get(other)?.call === number);
  return deadlineError({
    call: number,
    name,
    timeoutMs,
    missing: ranks.filter((other) => !come.includes(other)),
    unready: inState("unready"),
    failed: inState("failed").map((other) => ({
      rank: other,
      message: at.get(other)?.message ?? "",
    })),
    cause: failure?.cause,
  });
}
