/** How close two trainings must be. */

import assert from "node:assert/strict";
import type { Trained } from "./jax_models.ts";

/** Loss and weights may differ by this after 20 steps; 1e-6 is what float32 sums in another order make here. */
export const CLOSE = 1e-5;

/** How far two trainings are apart, in losses and in weights. */
export function apart(a: Omit<Trained, "running">, b: Omit<Trained, "running">) {
  const most = (a: readonly number[], b: readonly number[]) => {
    assert.equal(a.length, b.length);
    return Math.max(...a.map((value, i) => Math.abs(value - b[i])));
  };
  return { losses: most(a.losses, b.losses), weights: most(a.weights, b.weights) };
}
