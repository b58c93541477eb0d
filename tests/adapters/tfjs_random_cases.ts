/** The law on models that fast-check draws: layers, axes, scale, center, ranks 2 to 5, rows per rank. */

import fc from "fast-check";
import assert from "node:assert/strict";
import { spawnWorkers } from "../../lib/groups/workers.ts";
import { inProcessGroup } from "../../mod.ts";
import { loadTf } from "./tfjs_load.ts";
import type { Plan } from "./tfjs_models.ts";
import { modelOf, trainAlone, type Trained, type Training, trainRank } from "./tfjs_ranks.ts";
import type { Order } from "./tfjs_worker.ts";

const plans: fc.Arbitrary<Plan> = fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 })
  .chain((inner) =>
    fc.record({
      inner: fc.constant(inner),
      norms: fc.array(
        fc.record({
          units: fc.integer({ min: 1, max: 5 }),
          axis: fc.oneof(fc.constant(-1), fc.integer({ min: 1, max: inner.length + 1 })),
          scale: fc.boolean(),
          center: fc.boolean(),
        }),
        { minLength: 1, maxLength: 3 },
      ),
    })
  );

function trainings(worldSize: number): fc.Arbitrary<Training> {
  return fc.record({
    model: plans,
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

for (const worldSize of [2, 3]) {
  Deno.test(`random models train on ${worldSize} ranks as on one`, async () => {
    const seed = Date.now() & 0xffffff;
    const tasks = fc.sample(trainings(worldSize), { numRuns: 16, seed });
    const worker = new URL("./tfjs_worker.ts", import.meta.url);
    const parameter: Order = { backend: "cpu", tasks };
    const ranks = await spawnWorkers<Order, Trained[]>(worker, worldSize, {
      ...{ wait: "block", parameter },
    });
    const tf = await loadTf("cpu");
    const [alone] = inProcessGroup(1);
    for (const [i, task] of tasks.entries()) {
      const total = task.counts.reduce((a, b) => a + b);
      const one = modelOf(task).plain
        ? await trainAlone(tf, task)
        : await trainRank(tf, alone, { ...task, counts: [total] });
      const shown = `seed ${seed}, case ${i}: ${JSON.stringify(task)}`;
      const compare = (a: readonly number[], b: readonly number[], name: string) =>
        a.forEach((value, j) => {
          const apart = Math.abs(value - b[j]);
          // As of the law; relative where a model runs away to large numbers.
          assert(apart <= 1e-5 * Math.max(1, Math.abs(b[j])), `${name} ${apart} apart, ${shown}`);
        });
      compare(ranks[0][i].losses, one.losses, "losses");
      compare(ranks[0][i].history.loss, one.history.loss, "history");
      ranks[0][i].weights.forEach((weight, w) => compare(weight, one.weights[w], `weight ${w}`));
      for (const own of ranks) assert.deepEqual(own[i].weights, ranks[0][i].weights, shown);
    }
  });
}
