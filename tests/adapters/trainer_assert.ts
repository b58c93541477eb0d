/** What the trainer's tests demand of outcomes; apart from the runs, which go into pages too. */

import assert from "node:assert/strict";
import type { Outcome } from "./trainer_runs.ts";

/**
 * Asserts that ranks have trained as one: loss and metrics of every step, all weights in the end, and no tensor left
 * behind. After 20 steps float32 sums in another order are some 1e-6 apart, which Adam does not enlarge where no gradient
 * is nothing but rounding.
 */
export function assertLaw(one: Outcome, ranks: readonly Outcome[]): void {
  const [first] = ranks;
  assertNear(first.steps.flat(), one.steps.flat(), "loss and metrics");
  assertNear(first.weights, one.weights, "weights");
  for (const { steps, weights, leaked } of ranks) {
    assert.deepEqual(steps, first.steps, "every rank has the same bits");
    assert.deepEqual(weights, first.weights, "every rank has the same bits");
    assert.equal(leaked, 0, "tensors of a step");
  }
}

function assertNear(actual: readonly number[], expected: readonly number[], what: string): void {
  assert.equal(actual.length, expected.length, what);
  assert(expected.length > 0);
  const worst = Math.max(...actual.map((value, i) => Math.abs(value - expected[i])));
  assert(worst <= 1e-5, `${what} differ by ${worst}`);
}
