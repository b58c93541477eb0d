/** How far batch renormalization may go from the batch's own statistics: plain records, which can be stored and sent. */

import { checkInteger, checkOneOf } from "../check_value.ts";
import { wrongKind, wrongValue } from "../words.ts";

/** from up to batch `begin`, to from batch `end` on, and between them on a straight line. */
export interface Ramp {
  /** Sets it apart from other rules. */
  readonly rule: "ramp";
  /** Value of the first batches. */
  readonly from: number;
  /** Value that it comes to. */
  readonly to: number;
  /** Last batch that has the first value, an integer >= 0. */
  readonly begin: number;
  /** First batch that has the last value, an integer > begin. */
  readonly end: number;
}

/** Bounds of batch renormalization, each a number or a ramp over the counter of batches. */
export interface RenormBounds {
  /** r, the ratio of standard deviations, stays within [1 / rmax, rmax]: 1 or more; 1 is batch normalization. */
  readonly rmax: number | Ramp;
  /** d, the distance of means, stays within [-dmax, dmax]: in running standard deviations, 0 or more. */
  readonly dmax: number | Ramp;
}

const FIELDS = ["rule", "from", "to", "begin", "end"];

/** Checks bounds: a TypeError or RangeError says what came. */
export function checkBounds(bounds: RenormBounds, action: string): void {
  if (typeof bounds !== "object" || bounds === null) {
    throw wrongKind(action, "the bounds must be { rmax, dmax }", bounds);
  }
  checkBound(bounds.rmax, "rmax", 1, action);
  checkBound(bounds.dmax, "dmax", 0, action);
}

function checkBound(bound: number | Ramp, name: string, least: number, action: string): void {
  const check = (value: unknown, called: string) => {
    if (Number.isFinite(value) && Number(value) >= least) return;
    throw wrongValue(action, `${called} must be finite and >= ${least}`, value);
  };
  if (typeof bound !== "object" || bound === null) return check(bound, name);
  checkOneOf(bound.rule, ["ramp"], `the rule of ${name}`, action);
  const other = Object.keys(bound).find((field) => !FIELDS.includes(field));
  if (other !== undefined) {
    const wanted = `${name} of rule "ramp" may have ${FIELDS.join(", ")}`;
    throw wrongKind(action, wanted, other, "field");
  }
  check(bound.from, `from of ${name}`);
  check(bound.to, `to of ${name}`);
  checkInteger(bound.begin, `begin of ${name}`, action, 0);
  checkInteger(bound.end, `end of ${name}`, action, bound.begin + 1);
}

/**
 * Tells a bound of a batch.
 *
 * @param bound a number, or a ramp
 * @param batch which batch, counted from 1: `numBatchesTracked` after it
 * @returns the bound
 * @throws TypeError or RangeError for what is no bound, or no such batch
 *
 * @example The schedule of Ioffe 2017, section 5
 * ```ts
 * import { boundAt } from "@syncbn/syncbn";
 *
 * const rmax = { rule: "ramp", from: 1, to: 3, begin: 5000, end: 40_000 } as const;
 * console.assert(boundAt(rmax, 5000) === 1 && boundAt(rmax, 22_500) === 2);
 * ```
 */
export function boundAt(bound: number | Ramp, batch: number): number {
  const action = "tell the bound";
  checkBound(bound, "the bound", 0, action);
  checkInteger(batch, "batch", action, 1);
  if (typeof bound === "number") return bound;
  const { from, to, begin, end } = bound;
  const way = Math.min(1, Math.max(0, (batch - begin) / (end - begin)));
  return from * (1 - way) + to * way;
}
