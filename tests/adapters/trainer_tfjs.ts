/** The pinned TensorFlow.js, which `adapters.lock` names and the project's own lock does not. */

import type { Tfjs } from "./trainer_models.ts";

const TFJS = "npm:@tensorflow/tfjs@4.22.0";

/** Loads it on one of its backends. */
export async function loadTfjs(backend: "cpu" | "wasm"): Promise<Tfjs> {
  const tf: Tfjs = await import(TFJS);
  if (backend === "wasm") await import("npm:@tensorflow/tfjs-backend-wasm@4.22.0" as string);
  await tf.setBackend(backend);
  return tf;
}
