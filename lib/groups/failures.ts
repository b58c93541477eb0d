/**
 * How failures of collectives read: every engine knows what its ranks brought, and says it in these words, so that the
 * same failure has the same text on every rank and on every engine.
 */

import { CollectiveError, type CollectiveErrorCode } from "../errors.ts";
import { ranksOf } from "../words.ts";

/** What one rank brought to a call, or why it brought nothing. */
export interface Saying {
  /** Whether the rank failed before it had anything to bring. */
  readonly failed: boolean;
  /** What it called: kind, label, length, function; of a failure kind and label, and the message. */
  readonly text: string;
}

/** A CollectiveError as plain data, for engines that send it. */
export interface PlainFailure {
  readonly message: string;
  readonly code: CollectiveErrorCode;
  readonly ranks: readonly number[];
}

/** The plain data of an error, and back. */
export function toPlain({ message, code, ranks }: CollectiveError): PlainFailure {
  return { message, code, ranks };
}

/** Makes the error again from its plain data. */
export function fromPlain(
  { message, code, ranks }: PlainFailure,
  options?: ErrorOptions,
): CollectiveError {
  return new CollectiveError(message, code, ranks, options);
}

/** Says what a thrown value says, whatever it is: a getter may throw, a proxy refuse to be looked at. */
export function messageOf(error: unknown): string {
  return textOf(() => (error instanceof Error ? error.message : error)) || "no message";
}

/** Any value in a few words; never throws. */
export function display(value: unknown): string {
  return textOf(() =>
    ArrayBuffer.isView(value) ? `${value.constructor.name} of ${value.byteLength} bytes` : value
  );
}

function textOf(look: () => unknown): string {
  try {
    return String(look());
  } catch {
    return "an object without a text";
  }
}

/** Compares what all ranks brought to a call. */
export function judge(
  call: number,
  sayings: readonly Saying[],
  cause?: unknown,
): CollectiveError | null {
  const ranks = [...sayings.keys()];
  const failed = ranks.filter((rank) => sayings[rank].failed);
  if (failed.length > 0) {
    const causes = failed.map((rank) =>
      `rank ${rank} failed before call ${call}, ${sayings[rank].text}`
    );
    const text = causes.join("; ");
    const message = text[0].toUpperCase() + text.slice(1);
    return new CollectiveError(message, "rankFailed", failed, { cause });
  }
  const texts = new Set(sayings.map(({ text }) => text));
  if (texts.size === 1) return null;
  const doings = [...texts].map((text) =>
    `${ranksOf(ranks.filter((rank) => sayings[rank].text === text))} called ${text}`
  );
  return new CollectiveError(
    `Cannot complete call ${call} as the ranks disagree: ${doings.join("; ")}`,
    "disagreement",
    ranks,
  );
}

/** The failure of a call that all ranks, or some of them, have made. */
function incomplete(
  call: number,
  name: string,
  reason: string,
  code: CollectiveErrorCode,
  ranks: readonly number[],
  cause?: unknown,
): CollectiveError {
  const message = `Cannot complete call ${call}, ${name}, as ${reason}`;
  return new CollectiveError(message, code, ranks, { cause });
}

/** `combine` threw or returned rubbish, `cause`, in the call that `text` describes. */
export function combineError(
  call: number,
  text: string,
  worldSize: number,
  reason: string,
  cause?: unknown,
): CollectiveError {
  const all = Array.from({ length: worldSize }, (_, rank) => rank);
  return incomplete(call, text, `combining failed: ${reason}`, "rankFailed", all, cause);
}

/** These ranks ended and will not make the call that others wait in. */
export function endedError(ranks: readonly number[], call: number, name: string): CollectiveError {
  const advice = "every rank must make the same number of calls";
  const reason = `${ranksOf(ranks)} ended before it: ${advice}`;
  return incomplete(call, name, reason, "rankFailed", ranks);
}

/** A rank threw outside of its collectives, after it had made `calls` of them. */
export function leftError(
  rank: number,
  worldSize: number,
  calls: number,
  reason: string,
  cause?: unknown,
): CollectiveError {
  const group = `this group of ${worldSize}`;
  const message = `Rank ${rank} of ${group} failed after ${calls} calls: ${reason}`;
  return new CollectiveError(message, "rankFailed", [rank], { cause });
}

/** A rank's signal fired. */
export function cancelledError(
  rank: number,
  call: number,
  name: string,
  cause: unknown,
): CollectiveError {
  const reason = `rank ${rank} cancelled it: ${messageOf(cause)}`;
  return incomplete(call, name, reason, "cancelled", [rank], cause);
}

/** What is known when the time of a call is up. */
export interface Unfinished {
  readonly call: number;
  readonly name: string;
  readonly timeoutMs: number;
  /** Ranks that have not called. */
  readonly missing: readonly number[];
  /** Ranks that have called, whose values are still a pending promise. */
  readonly unready: readonly number[];
  /** Ranks that had failed already, with their messages. */
  readonly failed?: readonly { readonly rank: number; readonly message: string }[];
  /** The rank that was to combine the values of all and has not come to an end. */
  readonly combining?: number;
  readonly cause?: unknown;
}

/** The time is up. */
export function deadlineError(unfinished: Unfinished): CollectiveError {
  const { call, name, timeoutMs, missing, unready, failed = [], combining, cause } = unfinished;
  const late = combining === undefined ? [] : [combining];
  const reasons = [
    ...missing.length > 0 ? [`${ranksOf(missing)} did not arrive`] : [],
    ...unready.length > 0 ? [`the values of ${ranksOf(unready)} were not ready`] : [],
    ...late.map((rank) => `rank ${rank} did not come to an end of combining`),
  ];
  if (reasons.length === 0) reasons.push("values were still on their way");
  const failures = failed.map(({ rank, message }) => `; rank ${rank} had failed: ${message}`);
  const reason = `${reasons.join(" and ")} within ${timeoutMs} ms${failures.join("")}`;
  const atFault = new Set([...missing, ...unready, ...late]);
  return incomplete(call, name, reason, "deadline", [...atFault].sort((a, b) => a - b), cause);
}

/** A call that would hold up the thread while another of this rank needs it. */
export function busyError(name: string): TypeError {
  return new TypeError(
    `Cannot hold up the thread in ${name} as no awaited call of this rank must be under way: await them first`,
  );
}

/** Says that a seat is taken. */
export function takenBefore(rank: number): TypeError {
  return new TypeError(
    `Cannot take the seat of rank ${rank} as each seat may be taken once: it was taken before; ` +
      `a worker that was started anew cannot come back to its group: make new seats for all ranks ` +
      `by workerSeats(), and begin from the state that the others have`,
  );
}
