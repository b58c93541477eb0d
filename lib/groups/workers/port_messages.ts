/** What a hub and its ranks tell each other, and the mark of a port that a rank has taken. */

import type { PlainFailure } from "../failures.ts";
import type { LocalFlow } from "../flow.ts";

/** A rank to its hub; `id` numbers the rank's calls in all its groups. */
export type ToHub =
  /** The first of all: the seat is taken. */
  | { readonly kind: "take" }
  | {
    readonly kind: "call" | "split";
    readonly id: number;
    readonly group: number;
    readonly name: string;
    /** How the values travel: what a rank folds is gathered. */
    readonly flow: Exclude<LocalFlow, { readonly kind: "reduce" }>;
  }
  | {
    readonly kind: "values";
    readonly id: number;
    readonly values: Float64Array;
    readonly detail: string;
    /** Whether there are too many to be gathered: they come in a group for this call alone. */
    readonly inPieces: boolean;
  }
  | { readonly kind: "failure" | "cancel"; readonly id: number; readonly reason: string }
  /** The rank has let go of a group. */
  | { readonly kind: "drop"; readonly group: number }
  /** Whether the hub is there. */
  | { readonly kind: "ask" }
  | { readonly kind: "leave"; readonly failure: string | null };

/** What came of a call. */
export type ToRank =
  | { readonly kind: "values"; readonly id: number; readonly values: readonly Float64Array[] }
  | {
    readonly kind: "group";
    readonly id: number;
    readonly group: number;
    readonly rank: number;
    readonly worldSize: number;
  }
  | { readonly kind: "failure"; readonly id: number; readonly failure: PlainFailure }
  /** The hub is there. */
  | { readonly kind: "alive" }
  /** The hub will answer nothing any more, or not this end: somebody else has the seat. */
  | { readonly kind: "closed" | "taken" };

/** The mark of a port that somebody has taken in this thread, the same in all copies of the library. */
const TAKEN = Symbol.for("syncbn: this seat is taken");

/** Takes a port. */
export function take(port: MessagePort): void {
  Object.defineProperty(port, TAKEN, { value: true });
}

/** Whether somebody has taken a port in this thread. */
export function isTaken(port: MessagePort): boolean {
  return Object.hasOwn(port, TAKEN);
}
