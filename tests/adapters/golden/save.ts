/**
 * Trains a converted model a little, saves it, and writes what was saved to golden/keras2.json, with rows for Keras to go on with:
 * `deno run --no-check --lock=tests/adapters/adapters.lock -A tests/adapters/golden/save.ts`, then generate.py.
 */

import { convertSyncBatchNorm, replicate } from "../../../lib/adapters/tfjs.ts";
import { inProcessGroup } from "../../../mod.ts";
import { savedOf } from "../tfjs_files.ts";
import { loadTf } from "../tfjs_load.ts";
import { normal, type Tf } from "../tfjs_models.ts";

const tf: Tf = await loadTf("cpu");
const { layers, initializers } = tf;
const dense = (units: number, seed: number, more = {}) =>
  layers.dense({
    ...{ units, useBias: false, kernelInitializer: initializers.glorotUniform({ seed }), ...more },
  });
const norm = (more = {}) => layers.batchNormalization({ momentum: 0.9, ...more });

/** A wrapped layer, batch norms with and without scale and offset, a nested model in two places. */
function network(): Tf {
  const inner = tf.sequential({
    layers: [
      dense(6, 2, { inputShape: [3, 6] }),
      norm({ epsilon: 1e-5 }),
      layers.activation({ activation: "tanh" }),
    ],
  });
  const input = tf.input({ shape: [3, 4] });
  const first = norm({ scale: false }).apply(
    layers.timeDistributed({ layer: dense(6, 1) }).apply(input),
  );
  const twice = inner.apply(inner.apply(first));
  const end = norm({ center: false }).apply(layers.flatten().apply(twice));
  return tf.model({ inputs: input, outputs: dense(2, 3, { useBias: true }).apply(end) });
}

const rows = (count: number, seed: number) => ({
  x: { shape: [count, 3, 4], values: [...normal(count * 12, seed, 2, 1)] },
  y: { shape: [count, 2], values: [...normal(count * 2, seed + 1)] },
});
const tensorOf = ({ values, shape }: { readonly values: number[]; readonly shape: number[] }) =>
  tf.tensor(values, shape);

const [group] = inProcessGroup(1);
const model = await convertSyncBatchNorm(tf, network(), group);
model.compile({ optimizer: tf.train.sgd(0.05), loss: "meanSquaredError" });
const { x, y } = rows(24, 5);
await replicate(tf, model, group).fit(tensorOf(x), tensorOf(y), {
  ...{ epochs: 3, batchSize: 8, shuffle: false, verbose: 0 },
});
const { modelTopology, weightSpecs, weightData } = await savedOf(tf, model);
const weights = [...new Float32Array(weightData)];
const golden = { modelTopology, weightSpecs, weights, ...rows(12, 7), batches: 3, rate: 0.05 };
const path = new URL("keras2.json", import.meta.url);
await Deno.writeTextFile(path, JSON.stringify(golden) + "\n");
