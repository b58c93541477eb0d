/** TensorFlow.js, on its Wasm backend here and on its WebGPU backend in `../gpu/`. */

import { type BatchShape, EPS, type Numbers } from "../batches.ts";
import type { Packages } from "./packages.ts";
import type { Results } from "../errors.ts";
import { type Candidate, plainLayout, timeCalls, type Work } from "./subject.ts";

const NAME = "tfjs wasm";
/** It switches its own threads off where it finds Node's `process`, as in Deno. */
const THREADS = 1;

export interface TfTensor {
  readonly data: () => Promise<Float32Array>;
  readonly dispose: () => void;
}

export interface Gradients {
  readonly value: TfTensor;
  readonly grads: readonly [TfTensor, TfTensor, TfTensor];
}

/** Where it computes. */
type TfBackend = "wasm" | "webgpu";

/** The part of its interface that is used here, with that of its backend. */
export interface Tf {
  readonly setWasmPaths: (folder: string) => void;
  readonly setBackend: (name: TfBackend) => Promise<boolean>;
  readonly tensor: (values: Float32Array, dims: readonly number[]) => TfTensor;
  readonly moments: (x: TfTensor, axes: readonly number[], keepDims: boolean) => {
    readonly mean: TfTensor;
    readonly variance: TfTensor;
  };
  readonly batchNorm: (
    x: TfTensor,
    mean: TfTensor,
    variance: TfTensor,
    offset: TfTensor,
    scale: TfTensor,
    eps: number,
  ) => TfTensor;
  readonly sub: (a: TfTensor, b: TfTensor) => TfTensor;
  readonly add: (a: TfTensor, b: TfTensor | number) => TfTensor;
  readonly mul: (a: TfTensor, b: TfTensor) => TfTensor;
  readonly rsqrt: (x: TfTensor) => TfTensor;
  readonly tidy: <R>(body: () => R) => R;
  readonly valueAndGrads: (
    body: (x: TfTensor, weight: TfTensor, bias: TfTensor) => TfTensor,
  ) => (args: readonly TfTensor[], dy: TfTensor) => Gradients;
}

interface Esbuild {
  readonly build: (options: object) => Promise<unknown>;
  readonly stop: () => Promise<void>;
}

/** Bundles it, since its gradients register only in a bundle, and loads it. */
export async function tfjsSubject(
  packages: Packages,
  { folder }: { readonly folder: URL },
): Promise<Candidate> {
  try {
    const bundle = new URL("tfjs.cjs", folder);
    const exports = `export { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";`;
    await buildBundle(packages, bundle, { exports });
    const tf = packages.load(decodeURIComponent(bundle.pathname)) as Tf;
    tf.setWasmPaths(
      decodeURIComponent(packages.url("@tensorflow/tfjs-backend-wasm/dist/").pathname),
    );
    if (!await tf.setBackend("wasm")) throw new Error("its wasm backend does not start");
    return {
      name: NAME,
      threads: THREADS,
      version: `tfjs ${packages.versions["@tensorflow/tfjs-core"]}`,
      open: (shape, numbers) => {
        const { forward, both, dispose } = tfjsCalls(tf, shape, numbers);
        const calls = {
          forward: () => forward().dispose(),
          both: () => disposeAll(both()),
        };
        return Promise.resolve({
          contenders: [{
            name: NAME,
            threads: THREADS,
            works: ["forward", "both"],
            time: (work: Work, count: number) =>
              timeCalls(calls[work as keyof typeof calls], count),
            results: async (): Promise<Required<Results>> => {
              const made = both();
              const tensors = [made.value, ...made.grads];
              const [y, dx, gradWeight, gradBias] = await Promise.all(
                tensors.map((tensor) => tensor.data()),
              );
              disposeAll(made);
              return { y, dx, gradWeight, gradBias };
            },
          }],
          [Symbol.asyncDispose]: () => Promise.resolve(dispose()),
        });
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  } catch (error) {
    return { name: NAME, threads: THREADS, missing: packages.reason(error) };
  }
}

/** Its batch norm on a batch that is in place; everything returned is the caller's to dispose. */
export interface TfjsCalls {
  readonly forward: () => TfTensor;
  readonly both: () => Gradients;
  readonly dispose: () => void;
}

/** Puts a batch in place. */
export function tfjsCalls(
  tf: Tf,
  shape: BatchShape,
  { x: values, dy: gradient, weight: scale, bias: offset }: Numbers,
): TfjsCalls {
  const { dims, axes, vector } = plainLayout(shape);
  const place = (numbers: Float32Array, dims: readonly number[]) => tf.tensor(numbers, dims);
  const [x, dy] = [place(values, dims), place(gradient, dims)];
  const last = dims.length === 2;
  const plain = last ? [scale.length] : vector;
  const [weight, bias] = [place(scale, plain), place(offset, plain)];
  // Its fused operator is channels last only.
  const normalize = last
    ? (x: TfTensor, weight: TfTensor, bias: TfTensor) => {
      const { mean, variance } = tf.moments(x, axes, false);
      return tf.batchNorm(x, mean, variance, bias, weight, EPS);
    }
    : (x: TfTensor, weight: TfTensor, bias: TfTensor) => {
      const { mean, variance } = tf.moments(x, axes, true);
      const a = tf.mul(tf.rsqrt(tf.add(variance, EPS)), weight);
      return tf.add(tf.mul(tf.sub(x, mean), a), bias);
    };
  const gradients = tf.valueAndGrads(normalize);
  return {
    forward: () => tf.tidy(() => normalize(x, weight, bias)),
    both: () => tf.tidy(() => gradients([x, weight, bias], dy)),
    dispose: () => {
      for (const tensor of [x, dy, weight, bias]) tensor.dispose();
    },
  };
}

/** Disposes y and all gradients. */
export function disposeAll({ value, grads }: Gradients): void {
  for (const tensor of [value, ...grads]) tensor.dispose();
}

/** Bundles it with a backend. */
export async function buildBundle(
  packages: Packages,
  bundle: URL,
  { exports, banner = "" }: { readonly exports: string; readonly banner?: string },
): Promise<void> {
  const { build, stop } = packages.load("esbuild") as Esbuild;
  const contents = [
    `export * from "@tensorflow/tfjs-core";`,
    exports,
    `import "@tensorflow/tfjs-core/dist/register_all_gradients";`,
  ].join("\n");
  const path = (url: URL) => decodeURIComponent(url.pathname);
  try {
    await build({
      stdin: { contents, resolveDir: path(packages.url("..")) },
      bundle: true,
      // It asks for Node's modules where it finds Node's `process`.
      format: "cjs",
      platform: "node",
      mainFields: ["module", "main"],
      banner: { js: banner },
      outfile: path(bundle),
      logLevel: "silent",
    });
  } finally {
    await stop();
  }
}
