/** Rules by which the weight of a new batch follows the counter of batches: plain records, which can be stored and sent. */

import { checkInteger, checkOneOf } from "./check_value.ts";
import { checkShare } from "./check_share.ts";
import { wrongKind, wrongValue } from "./words.ts";

/** The same weight for every batch; `value` itself says no less. */
export interface ConstantMomentum {
  /** Sets it apart from the other rules. */
  readonly rule: "constant";
  /** Weight of the new batch, in [0, 1]. */
  readonly value: number;
}

/** value * factor^floor((t - 1) / every) for the t-th batch. */
export interface StepMomentum {
  /** Sets it apart from the other rules. */
  readonly rule: "step";
  /** Weight of the first batches, in [0, 1]. */
  readonly value: number;
  /** What the weight is multiplied by, in [0, 1]. */
  readonly factor: number;
  /** Batches between two steps, an integer >= 1. */
  readonly every: number;
}

/** Half a cosine from one weight to another: to + (from - to) * (1 + cos(pi * min(t - 1, steps) / steps)) / 2. */
export interface CosineMomentum {
  /** Sets it apart from the other rules. */
  readonly rule: "cosine";
  /** Weight of the first batch, in [0, 1]. */
  readonly from: number;
  /** Weight from batch steps + 1 on, in [0, 1]. */
  readonly to: number;
  /** Batches on the way, an integer >= 1. */
  readonly steps: number;
}

/**
 * An exponential average without its first value: value / (1 - (1 - value)^t) for the t-th batch. It is the average of
 * Kingma and Ba 2015 (Adam, section 3), which begins at 0 and is divided by 1 - (1 - value)^t, as one recursion.
 */
export interface ZeroDebiasedMomentum {
  /** Sets it apart from the other rules. */
  readonly rule: "zeroDebiased";
  /** Weight that it tends to, in (0, 1]. */
  readonly value: number;
}

/** How the weight of a new batch follows the counter. */
export type MomentumSchedule =
  | ConstantMomentum
  | StepMomentum
  | CosineMomentum
  | ZeroDebiasedMomentum;

/** Weight of a new batch in running statistics: a number, null for the plain average over all, or a rule. */
export type Momentum = number | null | MomentumSchedule;

const NUMBERS = {
  constant: ["value"],
  step: ["value", "factor", "every"],
  cosine: ["from", "to", "steps"],
  zeroDebiased: ["value"],
} as const satisfies Record<MomentumSchedule["rule"], readonly string[]>;

/** Checks a momentum: a TypeError or RangeError says what came. */
export function checkMomentum(momentum: Momentum, action: string): void {
  if (momentum === null) return;
  if (typeof momentum !== "object") {
    const others = ", null for a cumulative average, or a record with a rule";
    checkShare(momentum, "momentum", action, others);
    return;
  }
  checkOneOf(momentum.rule, Object.keys(NUMBERS), "the rule of momentum", action);
  const known: readonly string[] = NUMBERS[momentum.rule];
  const other = Object.keys(momentum).find((name) => name !== "rule" && !known.includes(name));
  if (other !== undefined) {
    const wanted = `momentum of rule "${momentum.rule}" may have ${known.join(", ")}`;
    throw wrongKind(action, wanted, other, "field");
  }
  for (const name of known) {
    const value = (momentum as unknown as Readonly<Record<string, number>>)[name];
    const called = `${name} of momentum`;
    if (name === "every" || name === "steps") checkInteger(value, called, action, 1);
    else checkShare(value, called, action);
  }
  if (momentum.rule !== "zeroDebiased" || momentum.value > 0) return;
  throw wrongValue(action, "value of a zero-debiased momentum must be > 0", momentum.value);
}

/**
 * Tells which weight a rule gives to a batch.
 *
 * @param momentum a number, null for the plain average, or a rule as a plain record
 * @param batch which batch, counted from 1: `numBatchesTracked` after it
 * @returns the weight f in `new = (1 - f) * old + f * observed`, in [0, 1]
 * @throws TypeError or RangeError for what is no rule, or no such batch
 *
 * @example
 * ```ts
 * import { momentumAt } from "@syncbn/syncbn";
 *
 * const momentum = { rule: "step", value: 0.5, factor: 0.5, every: 10 } as const;
 * console.assert(momentumAt(momentum, 10) === 0.5 && momentumAt(momentum, 11) === 0.25);
 * console.assert(momentumAt(null, 4) === 1 / 4);
 * ```
 */
export function momentumAt(momentum: Momentum, batch: number): number {
  const action = "tell the momentum";
  checkMomentum(momentum, action);
  checkInteger(batch, "batch", action, 1);
  return shareOf(momentum, batch);
}

/** {@linkcode momentumAt} of what may be no rule: then it is no share of 1. */
export function shareOf(momentum: Momentum, batch: number): number {
  if (momentum === null) return 1 / batch;
  if (typeof momentum !== "object") return momentum;
  switch (momentum.rule) {
    case "constant":
      return momentum.value;
    case "step":
      return momentum.value * momentum.factor ** Math.floor((batch - 1) / momentum.every);
    case "cosine": {
      const { from, to, steps } = momentum;
      const half = Math.sin(Math.PI / 2 * Math.min((batch - 1) / steps, 1)) ** 2;
      return from * (1 - half) + to * half;
    }
    case "zeroDebiased":
      // 1 - (1 - value)^t without the cancellation of a small value.
      return Math.min(1, momentum.value / -Math.expm1(batch * Math.log1p(-momentum.value)));
    default:
      return NaN;
  }
}
