/** The pinned TensorFlow.js, which the adapters' lock names, and what is measured of it. */

import type { TensorFlowLike, TfModel, TfTensor } from "../../lib/adapters/tfjs.ts";

/** A tensor, or a variable. */
export interface Variable extends TfTensor {
  readonly size: number;
  readonly mul: (other: Variable) => Variable;
  readonly sum: () => Variable;
  readonly dataSync: () => Float32Array;
}

interface Layer {
  readonly trainableWeights: readonly { readonly read: () => Variable }[];
  readonly build: (shape: readonly number[]) => void;
  readonly apply: (x: Variable, options: { readonly training: boolean }) => Variable;
}

interface Model extends TfModel {
  readonly compile: (options: { readonly optimizer: string; readonly loss: string }) => void;
  readonly trainOnBatch: (x: Variable, y: Variable) => Promise<unknown>;
}

/** The module. */
export interface Tf extends TensorFlowLike {
  readonly setBackend: (name: string) => Promise<boolean>;
  readonly ready: () => Promise<void>;
  readonly variable: (initial: Variable) => Variable;
  readonly randomNormal: (
    ...given: [shape: readonly number[], mean: number, std: number, dtype: "float32", seed: number]
  ) => Variable;
  readonly ones: (shape: readonly number[]) => Variable;
  readonly zeros: (shape: readonly number[]) => Variable;
  readonly tidy: <T>(body: () => T) => T;
  readonly variableGrads: (
    loss: () => Variable,
  ) => { readonly grads: Readonly<Record<string, Variable>> };
  readonly grads: (
    of: (x: Variable, ...parameters: Variable[]) => Variable,
  ) => (at: readonly Variable[], dy: Variable) => readonly Variable[];
  readonly disposeVariables: () => void;
  readonly layers: Readonly<Record<string, (options?: object) => Layer>>;
  readonly initializers: Readonly<Record<string, (options: object) => unknown>>;
  readonly sequential: (options: { readonly layers: readonly unknown[] }) => Model;
}

// Not for the checker, which would ask for them everywhere.
const TFJS = "npm:@tensorflow/tfjs@4.22.0";
const WASM = "npm:@tensorflow/tfjs-backend-wasm@4.22.0";

/** Loads it on one of its backends. */
export async function loadTf(backend: "cpu" | "wasm"): Promise<Tf> {
  const tf: Tf = await import(TFJS);
  if (backend === "wasm") await import(WASM);
  await tf.setBackend(backend);
  await tf.ready();
  return tf;
}

/** Fails where two gradients are not the same: what is wrong is not worth timing. */
export function checked([theirs, ours]: readonly Float32Array[], what: string): void {
  const [largest, off] = [theirs, theirs.map((value, i) => value - ours[i])].map((values) =>
    values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  );
  if (off <= 1e-3 * largest) return;
  throw new Error(`gradients of ${what} differ by ${off}, of ${largest} at most`);
}
