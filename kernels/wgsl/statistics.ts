/**
 * Where a kernel takes its statistics from, the moments of a batch or the running statistics of a state; and how those advance.
 */

import { gather, slicesOf, structOf, treeReduce } from "./fold.ts";
import { type Kernel, type Storage, vector, written } from "./kernel.ts";
import { moments, UNCOUNTABLE } from "./moments_algebra.ts";
import { ofVector, type Tile, tiledKernel } from "./tiles.ts";

/** Moments of a batch, or a state's mean and variance. */
export type Source = "batch" | "running";

/** The storage buffers of a source. */
export function statisticsStorage(source: Source): Record<string, Storage> {
  return source === "batch"
    ? { moments: slicesOf(moments) }
    : { mean: vector(), variance: vector() };
}

/** WGSL: `statistics`, the moments of an invocation's lane; running ones are those of one value with that m2. */
export function statistics(source: Source, tile: Tile): string {
  const head = `fn statistics(place: Place, thread: u32) -> Moments {`;
  if (source === "batch") {
    return `${treeReduce(tile, moments)}${gather(tile, moments, "moments")}
${head}
  var whole = gather_moments(place, thread);
  whole.count = abs(whole.count);
  return whole;
}
`;
  }
  return `${structOf(moments)}
${head}
  let c = place.channel;
  return Moments(${ofVector(tile, "mean")}, Statistic(0.0), ${ofVector(tile, "variance")}, 1.0);
}
`;
}

/**
 * Running statistics after a batch: keep * old + factor * observed, with the unbiased variance m2 / (count - 1), or m2 / count
 * of weights that are 1 or less in all; `keep` is 1 - factor, rounded once. The old ones where nothing counts or a weight is
 * none. moments, oldMean, oldVar -> newMean, newVar.
 */
export function runningStatsKernel(options: Tile): Kernel {
  return tiledKernel({
    name: "runningStats",
    options,
    storage: {
      ...statisticsStorage("batch"),
      oldMean: vector(),
      oldVar: vector(),
      newMean: written(vector()),
      newVar: written(vector()),
    },
    parameters: { keep: "f32", factor: "f32" },
    declared: statistics("batch", options),
    body: `let batch = statistics(place, thread);
  if (place.row > 0u || !exists(place)) { return; }
  let c = place.channel;
  if (batch.count == 0.0 || batch.count >= ${UNCOUNTABLE}) {
    newMean[p.newMeanAt + c] = oldMean[p.oldMeanAt + c];
    newVar[p.newVarAt + c] = oldVar[p.oldVarAt + c];
    return;
  }
  let unbiased = batch.m2 / select(batch.count, batch.count - 1.0, batch.count > 1.0);
  newMean[p.newMeanAt + c] = p.keep * oldMean[p.oldMeanAt + c] + p.factor * batch.mean + p.factor * batch.meanLow;
  newVar[p.newVarAt + c] = p.keep * oldVar[p.oldVarAt + c] + p.factor * unbiased;`,
  });
}
