/** A rank of the tests of failures: it trains, again and again, and the last rank misbehaves in the middle of each time. */

import { convertSyncBatchNorm, replicate } from "../../lib/adapters/tfjs.ts";
import { serveRank } from "../../lib/groups/workers.ts";
import { isCollectiveError, type ProcessGroup } from "../../mod.ts";
import { loadTf } from "./tfjs_load.ts";
import { dataOf, SPECS, type Tf } from "./tfjs_models.ts";
import { datasetOf } from "./tfjs_ranks.ts";

/** How the last rank misbehaves in its third batch, or from the start. */
export type How =
  | "throws in a callback"
  | "throws in its loss"
  | "stops early"
  | "hangs"
  | "closes its worker"
  | "has fewer batches"
  | "has other epochs"
  | "has fewer batches of a data set"
  | "has a data set that fails"
  | "is not judged"
  | "has other weights"
  | "has another model";

/** What is to happen. */
export interface Order {
  readonly backend: "cpu" | "wasm";
  /** One after the other: a group outlives all of them but the last rank's silence. */
  readonly hows: readonly How[];
  /** When the last rank misbehaved and when the first one heard of it, in ms, each time. */
  readonly times: SharedArrayBuffer;
}

/** One of these times. */
interface Turn {
  readonly how: How;
  readonly at: Float64Array;
}

/** What a rank came to. */
export interface Outcome {
  readonly code: string | null;
  readonly message: string;
}

async function train(tf: Tf, group: ProcessGroup, { how, at }: Turn): Promise<void> {
  const last = group.rank === group.worldSize - 1;
  const is = (wanted: How) => last && how === wanted;
  const misbehave = () => void (at[0] = Date.now());
  const spec = SPECS.mlp;
  const plain = is("has another model") ? SPECS.nested.make(tf) : spec.make(tf);
  if (last && how.startsWith("has")) misbehave();
  const model = await convertSyncBatchNorm(tf, plain, group);
  let steps = 0;
  const loss = (target: Tf, output: Tf) => {
    if (++steps === 3 && is("throws in its loss")) {
      misbehave();
      throw new Error("no loss");
    }
    return tf.metrics.meanSquaredError(target, output);
  };
  model.compile({ optimizer: "sgd", loss });
  if (is("has other weights")) {
    model.setWeights(model.getWeights().map((weight: Tf) => tf.add(weight, 1)));
  }
  replicate(tf, model, group);
  const { x, y } = dataOf(tf, spec, is("has fewer batches") ? 40 : 48);
  const callbacks = {
    onBatchEnd: (batch: number) => {
      if (batch !== 2 || !last) return;
      misbehave();
      if (how === "throws in a callback") throw new Error("a callback failed");
      if (how === "stops early") model.stopTraining = true;
      if (how === "closes its worker") (globalThis as unknown as { close(): void }).close();
      if (how === "closes its worker" || how === "hangs") {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 30_000);
      }
    },
  };
  const epochs = is("has other epochs") ? 3 : 2;
  if (how.includes("data set")) {
    const list = Array.from({ length: 6 }, (_, i) => ({
      xs: x.slice([8 * i, 0], [8, 10]),
      ys: y.slice([8 * i, 0], [8, 1]),
    }));
    const own = is("has fewer batches of a data set") ? list.slice(0, 4) : list;
    await model.fitDataset(datasetOf(own, is("has a data set that fails") ? 3 : Infinity), {
      ...{ epochs, verbose: 0, callbacks },
    });
    return;
  }
  const validationData = how === "is not judged" && !last ? [x, y] : undefined;
  await model.fit(x, y, { epochs, batchSize: 8, verbose: 0, callbacks, validationData });
}

serveRank(async (group, { backend, hows, times }: Order): Promise<readonly Outcome[]> => {
  const tf = await loadTf(backend);
  const outcomes: Outcome[] = [];
  for (const [i, how] of hows.entries()) {
    const at = new Float64Array(times, 16 * i, 2);
    try {
      await train(tf, group, { how, at });
      outcomes.push({ code: null, message: "it ended well" });
    } catch (error) {
      if (group.rank === 0) at[1] = Date.now();
      const { message, cause } = error as Error;
      const code = isCollectiveError(error) ? error.code : null;
      outcomes.push({ code, message: `${message} ${(cause as Error | undefined)?.message ?? ""}` });
    }
  }
  return outcomes;
});
