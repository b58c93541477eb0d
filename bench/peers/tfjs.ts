/** TensorFlow.js, on its Wasm backend here and on its WebGPU backend in `../gpu/`. */

import { type BatchShape, EPS, type Numbers } from "../batches.ts";
import type { Packages } from "./packages.ts";
import { type Absent, type Calls, type Library, plainLayout, startLibrary } from "./subject.ts";

interface TfTensor {
  readonly data: () => Promise<Float32Array>;
  readonly dispose: () => void;
}

type Operator = (...operands: readonly (TfTensor | number)[]) => TfTensor;

interface Gradients {
  readonly value: TfTensor;
  readonly grads: readonly [TfTensor, TfTensor, TfTensor];
}

/** The part of its interface that is used here, with that of its backend. */
interface Tf {
  readonly setWasmPaths: (folder: string) => void;
  readonly backend: () => Backend;
  readonly setBackend: (name: string) => Promise<boolean>;
  readonly tensor: (values: Float32Array, dims: readonly number[]) => TfTensor;
  readonly moments: (x: TfTensor, axes: readonly number[], keepDims: boolean) => {
    readonly mean: TfTensor;
    readonly variance: TfTensor;
  };
  /** x, mean, variance, offset, scale, eps */
  readonly batchNorm: Operator;
  readonly sub: Operator;
  readonly add: Operator;
  readonly mul: Operator;
  readonly rsqrt: Operator;
  readonly tidy: <R>(body: () => R) => R;
  readonly valueAndGrads: (
    body: (x: TfTensor, weight: TfTensor, bias: TfTensor) => TfTensor,
  ) => (args: readonly TfTensor[], dy: TfTensor) => Gradients;
}

interface Esbuild {
  readonly build: (options: object) => Promise<unknown>;
  readonly stop: () => Promise<void>;
}

interface Backend {
  readonly device: GPUDevice;
  readonly commandEncoder: GPUCommandEncoder | null;
  readonly submitQueue: () => void;
}

const BACKENDS = {
  wasm: {
    name: "tfjs wasm",
    exports: `export { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";`,
    banner: "",
  },
  webgpu: {
    name: "tfjs WebGPU",
    exports: `export * as webgpu from "@tensorflow/tfjs-backend-webgpu";`,
    // It looks for the GPU only where there is a window.
    banner: "var window = globalThis;",
  },
} as const;

/** Bundles it into a folder, since its gradients register only in a bundle, and loads it. */
export function tfjs(
  packages: Packages,
  kind: keyof typeof BACKENDS,
  folder: URL,
): Promise<Library | Absent> {
  // It switches its own threads off where it finds Node's `process`, as in Deno.
  return startLibrary(packages, { name: BACKENDS[kind].name, threads: 1 }, async () => {
    const bundle = decodeURIComponent(new URL(`tfjs_${kind}.cjs`, folder).pathname);
    await buildBundle(packages, bundle, BACKENDS[kind]);
    const tf = packages.load(bundle) as Tf;
    const wasm = packages.url("@tensorflow/tfjs-backend-wasm/dist/");
    if (kind === "wasm") tf.setWasmPaths(decodeURIComponent(wasm.pathname));
    if (!await tf.setBackend(kind)) throw new Error(`its ${kind} backend does not start`);
    const settle = () => {
      const backend = tf.backend();
      if (backend.commandEncoder !== null) backend.submitQueue();
      return backend.device.queue.onSubmittedWorkDone();
    };
    return {
      version: `tfjs ${packages.versions["@tensorflow/tfjs-core"]}`,
      open: (shape, numbers) => ({
        ...place(tf, shape, numbers),
        ...(kind === "webgpu" ? { settle } : {}),
      }),
    };
  });
}

function place(
  tf: Tf,
  shape: BatchShape,
  { x: values, dy: gradient, weight: scale, bias: offset }: Numbers,
): Calls {
  const { dims, axes, vector } = plainLayout(shape);
  const [x, dy] = [tf.tensor(values, dims), tf.tensor(gradient, dims)];
  const last = dims.length === 2;
  const plain = last ? [scale.length] : vector;
  const [weight, bias] = [tf.tensor(scale, plain), tf.tensor(offset, plain)];
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
  const compute = () => tf.tidy(() => gradients([x, weight, bias], dy));
  const dispose = (...tensors: readonly TfTensor[]) => tensors.forEach((one) => one.dispose());
  return {
    forward: () => tf.tidy(() => normalize(x, weight, bias)).dispose(),
    both: () => {
      const { value, grads } = compute();
      dispose(value, ...grads);
    },
    results: async () => {
      const { value, grads } = compute();
      const tensors = [value, ...grads];
      const made = await Promise.all(tensors.map((tensor) => tensor.data()));
      dispose(...tensors);
      const [y, dx, gradWeight, gradBias] = made;
      return { y, dx, gradWeight, gradBias };
    },
    dispose: () => dispose(x, dy, weight, bias),
  };
}

async function buildBundle(
  packages: Packages,
  bundle: string,
  { exports, banner }: { readonly exports: string; readonly banner: string },
): Promise<void> {
  const { build, stop } = packages.load("esbuild") as Esbuild;
  const contents = [
    `export * from "@tensorflow/tfjs-core";`,
    exports,
    `import "@tensorflow/tfjs-core/dist/register_all_gradients";`,
  ].join("\n");
  try {
    await build({
      stdin: { contents, resolveDir: decodeURIComponent(packages.url("..").pathname) },
      bundle: true,
      // It asks for Node's modules where it finds Node's `process`.
      format: "cjs",
      platform: "node",
      mainFields: ["module", "main"],
      banner: { js: banner },
      outfile: bundle,
      logLevel: "silent",
    });
  } finally {
    await stop();
  }
}
