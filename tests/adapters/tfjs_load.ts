/** The pinned TensorFlow.js, which `adapters.lock` names and the project's own lock does not. */

import type { Tf } from "./tfjs_models.ts";

const TFJS = "npm:@tensorflow/tfjs@4.22.0";
const WASM = "npm:@tensorflow/tfjs-backend-wasm@4.22.0";

/** Loads it on one of its backends. */
export async function loadTf(backend: "cpu" | "wasm"): Promise<Tf> {
  const tf = await import(TFJS);
  if (backend === "wasm") await import(WASM);
  await tf.setBackend(backend);
  await tf.ready();
  return tf;
}
