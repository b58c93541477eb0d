/** The pinned jax-js, and what the tests use of it beside what the adapter does. */

import type { Jax, JaxArray, JaxDevice } from "../../lib/adapters/jax.ts";

/** Where it comes from; not for the checker, which would ask for it everywhere. The adapters' lock names it. */
export const JAX = "npm:@jax-js/jax@0.1.25";

/** An array with the operations that models are made of; they give up their operands. */
export interface Arr extends JaxArray {
  readonly add: (other: Arr | number) => Arr;
  readonly sub: (other: Arr | number) => Arr;
  readonly mul: (other: Arr | number) => Arr;
  readonly div: (other: Arr | number) => Arr;
  readonly reshape: (shape: number[]) => Arr;
  readonly transpose: (axes?: number[]) => Arr;
  readonly astype: (dtype: string) => Arr;
  readonly data: () => Promise<Float32Array<ArrayBuffer>>;
}

/** Parameters, or gradients, of a segment of a model. */
export type Weights = readonly Arr[];
/** The way back of a segment. */
type Pull = ((gradient: Arr) => [Weights, Arr]) & { readonly dispose: () => void };

/** The module. */
export interface JaxModule extends Jax<Arr> {
  readonly init: (...devices: JaxDevice[]) => Promise<readonly JaxDevice[]>;
  readonly defaultDevice: (device?: JaxDevice) => JaxDevice;
  readonly vjp: (
    segment: (weights: Weights, x: Arr) => Arr,
    primals: readonly [Weights, Arr],
  ) => [Arr, Pull];
  readonly jvp: <P extends readonly Arr[], T extends Arr | readonly Arr[]>(
    f: (...primals: P) => T,
    primals: P,
    tangents: P,
  ) => [value: T, direction: T];
  readonly grad: <P extends readonly Arr[]>(
    f: (...primals: P) => Arr,
    options: { readonly argnums: number[] },
  ) => (...primals: P) => Arr[];
  readonly valueAndGrad: <P>(
    loss: (parameters: P, ...data: Arr[]) => Arr,
  ) => (parameters: P, ...data: Arr[]) => [Arr, P];
  /** Traces and compiles a function once for all arguments of the same shapes. */
  readonly jit: <A extends readonly unknown[], R>(
    f: (...args: A) => R,
  ) => ((...args: A) => R) & { readonly dispose: () => void };
  readonly tree: {
    readonly leaves: (tree: unknown) => Arr[];
    readonly ref: <T>(tree: T) => T;
    readonly dispose: (tree: unknown) => void;
  };
  readonly numpy: Jax<Arr>["numpy"] & {
    readonly float16: string;
    readonly matmul: (a: Arr, b: Arr) => Arr;
    readonly mean: (x: Arr, axes: number | number[], options?: { keepdims: boolean }) => Arr;
    readonly sum: (x: Arr) => Arr;
    readonly sqrt: (x: Arr) => Arr;
  };
  readonly nn: { readonly relu: (x: Arr) => Arr };
  readonly lax: {
    readonly conv: (x: Arr, kernel: Arr, strides: number[], padding: string) => Arr;
  };
}

let loaded: Promise<JaxModule> | undefined;

/** Loads it and makes a backend the default one; null where the machine has it not. */
export async function loadJax(backend: JaxDevice): Promise<JaxModule | null> {
  const jax = await (loaded ??= import(JAX) as Promise<JaxModule>);
  if (!(await jax.init(backend)).includes(backend)) return null;
  jax.defaultDevice(backend);
  return jax;
}
