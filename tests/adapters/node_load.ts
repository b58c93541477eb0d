/** TensorFlow.js in Node, from npm. */

import { createRequire } from "node:module";
import { dirname } from "node:path";
import type { Tf } from "./tfjs_models.ts";

/** Their names are none that a bundler would follow: they must be one copy for all modules, as their users have them. */
const [TFJS, WASM] = ["@tensorflow/tfjs", "@tensorflow/tfjs-backend-wasm"];

/** Loads it on one of its backends. */
export async function loadTf(backend: "cpu" | "wasm"): Promise<Tf> {
  const tf = await import(TFJS);
  if (backend === "wasm") {
    const wasm = await import(WASM);
    const require = createRequire(import.meta.url);
    wasm.setWasmPaths(`${dirname(require.resolve(WASM))}/`);
  }
  await tf.setBackend(backend);
  await tf.ready();
  return tf;
}
