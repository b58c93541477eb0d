/** Models and trainings that fast-check draws: layers, nested and shared ones and wrappers, axes, ranks 2 to 5, rows per rank. */

import fc from "fast-check";
import type { Block, Plan } from "./tfjs_models.ts";
import type { Training } from "./tfjs_ranks.ts";

/** Models, of these kinds of blocks. */
export function plans(kinds: readonly Block["kind"][]): fc.Arbitrary<Plan> {
  return fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 }).chain((inner) => {
    // TensorFlow.js's wrapper has no gradient of one place alone.
    const blocks = kinds.filter((kind) => kind !== "timed" || inner[0] > 1).map((kind) =>
      fc.record({
        kind: fc.constant(kind),
        units: fc.integer({ min: 1, max: 5 }),
        norm: fc.record({
          axis: fc.oneof(
            fc.constant(-1),
            // In a wrapper there is one axis less.
            fc.integer({ min: 1, max: kind === "timed" ? inner.length : inner.length + 1 }),
          ),
          scale: fc.boolean(),
          center: fc.boolean(),
        }),
      })
    );
    return fc.record({
      inner: fc.constant(inner),
      blocks: fc.array(fc.oneof(...blocks), { minLength: 1, maxLength: 3 }),
    });
  });
}

/** Trainings of such models over so many ranks, short ones. */
export function trainings(worldSize: number): fc.Arbitrary<Training> {
  return fc.record({
    model: plans(["dense", "nested", "shared", "timed"]),
    optimizer: fc.constantFrom("sgd", "momentum"),
    // Enough rows for a variance that says something.
    counts: fc.array(fc.nat(6), { minLength: worldSize - 1, maxLength: worldSize - 1 })
      .map((rest) => [6, ...rest]),
    rows: fc.constant(24),
    epochs: fc.constant(2),
    ours: fc.boolean(),
    whenOut: fc.constant("shadow" as const),
  });
}
