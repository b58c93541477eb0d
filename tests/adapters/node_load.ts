/** TensorFlow.js in Node, from npm. */

import type { Tf } from "./tfjs_models.ts";

/** Its name is none that a bundler would follow: it must be one copy for all modules, as its users have it. */
const TFJS = "@tensorflow/tfjs";

/** Loads it on its cpu backend. */
export async function loadTf(): Promise<Tf> {
  const tf = await import(TFJS);
  await tf.setBackend("cpu");
  await tf.ready();
  return tf;
}
