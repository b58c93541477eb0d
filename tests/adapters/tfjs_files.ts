/** Saving models of TensorFlow.js, and what they say then. */

import type { Tf } from "./tfjs_models.ts";

/** What a model says that is saved: topology, names and shapes of weights, their bytes. */
export async function savedOf(tf: Tf, model: Tf): Promise<Tf> {
  let artifacts: Tf;
  await model.save(tf.io.withSaveHandler((given: Tf) => {
    artifacts = given;
    return Promise.resolve({
      modelArtifactsInfo: { dateSaved: new Date(0), modelTopologyType: "JSON" },
    });
  }));
  return artifacts;
}

/** Its weights by name. */
export async function namedWeights(tf: Tf, model: Tf): Promise<ReadonlyMap<string, number[]>> {
  const { weightSpecs, weightData } = await savedOf(tf, model);
  const all = new Float32Array(weightData);
  let at = 0;
  return new Map(
    weightSpecs.map(({ name, shape }: { readonly name: string; readonly shape: number[] }) => {
      const size = shape.reduce((product, extent) => product * extent, 1);
      return [name, [...all.subarray(at, at += size)]];
    }),
  );
}
