/** jax-js, on its Wasm backend here and on its WebGPU backend in `../gpu/`. */

import { type BatchShape, EPS, extentsOf, type Numbers } from "../batches.ts";
import type { Packages } from "./packages.ts";
import { type Absent, type Calls, type Library, plainLayout, startLibrary } from "./subject.ts";

/** An array; operators consume their operands, and `ref` is another reference to the same. */
interface Jax {
  readonly ref: Jax;
  readonly add: (other: Jax | number) => Jax;
  readonly sub: (other: Jax) => Jax;
  readonly mul: (other: Jax | number) => Jax;
  readonly reshape: (dims: readonly number[]) => Jax;
  readonly data: () => Promise<Float32Array>;
  readonly dispose: () => void;
}

type Reduction = (x: Jax, axes: readonly number[], options: { readonly keepdims: boolean }) => Jax;

/** The part of its interface that is used here. */
interface JaxModule {
  readonly init: (device: string) => Promise<readonly string[]>;
  readonly defaultDevice: (device: string) => void;
  readonly jit: <F>(body: F) => F;
  readonly blockUntilReady: (arrays: Jax | readonly Jax[]) => Promise<unknown>;
  readonly numpy: {
    readonly array: (values: Float32Array) => Jax;
    readonly mean: Reduction;
    readonly sum: Reduction;
    readonly square: (x: Jax) => Jax;
    readonly sqrt: (x: Jax) => Jax;
    readonly reciprocal: (x: Jax) => Jax;
  };
}

/**
 * Loads it once per number of threads. It takes as many workers as the machine has cores when it is loaded; its two
 * builds, for import and for require, are two instances.
 */
export async function jaxOnWasm(packages: Packages, threads: 1 | 2): Promise<Library | Absent> {
  const cores = Object.getOwnPropertyDescriptor(navigator, "hardwareConcurrency");
  Object.defineProperty(navigator, "hardwareConcurrency", { value: threads, configurable: true });
  try {
    return await start(packages, "wasm", threads);
  } finally {
    if (cores) Object.defineProperty(navigator, "hardwareConcurrency", cores);
    else Reflect.deleteProperty(navigator, "hardwareConcurrency"); // The prototype's shows again.
  }
}

/** Loads it for the GPU that it finds in `navigator`. */
export function jaxOnWebGpu(packages: Packages): Promise<Library | Absent> {
  return start(packages, "webgpu", 1);
}

function start(packages: Packages, backend: "wasm" | "webgpu", threads: 1 | 2) {
  const name = `jax-js ${backend === "wasm" ? "wasm" : "WebGPU"}`;
  return startLibrary(packages, { name, threads }, async () => {
    const jax = threads === 1
      ? packages.load("@jax-js/jax") as JaxModule
      : await import(packages.url("@jax-js/jax/dist/index.js").href) as JaxModule;
    const started = await jax.init(backend);
    if (!started.includes(backend)) throw new Error(`its ${backend} backend does not start`);
    jax.defaultDevice(backend);
    return {
      version: `jax-js ${packages.versions["@jax-js/jax"]}`,
      open: (shape, numbers) => place(jax, shape, numbers),
    };
  });
}

function place(
  { jit, numpy: np, blockUntilReady }: JaxModule,
  shape: BatchShape,
  numbers: Numbers,
): Calls {
  const { dims, axes, vector } = plainLayout(shape);
  const { samples, inner } = extentsOf(shape);
  const inverse = 1 / (samples * inner);
  const keepdims = { keepdims: true };

  const centre = (x: Jax) => {
    const mean = np.mean(x.ref, axes, keepdims);
    return x.sub(mean);
  };
  const invert = (xmu: Jax) => {
    const variance = np.mean(np.square(xmu), axes, keepdims);
    return np.reciprocal(np.sqrt(variance.add(EPS)));
  };
  const forward = jit((x: Jax, weight: Jax, bias: Jax) => {
    const xmu = centre(x);
    const invstd = invert(xmu.ref);
    return xmu.mul(invstd.mul(weight)).add(bias);
  });
  // By hand in one jit: its own vjp of forward takes longer.
  const both = jit((x: Jax, weight: Jax, bias: Jax, dy: Jax) => {
    const xmu = centre(x);
    const invstd = invert(xmu.ref);
    const xhat = xmu.mul(invstd.ref);
    const y = xhat.ref.mul(weight.ref).add(bias);
    const gradBias = np.sum(dy.ref, axes, keepdims);
    const gradWeight = np.sum(dy.ref.mul(xhat.ref), axes, keepdims);
    const centred = dy.sub(gradBias.ref.mul(inverse));
    const dx = centred.sub(xhat.mul(gradWeight.ref.mul(inverse))).mul(weight.mul(invstd));
    return [y, dx, gradWeight, gradBias];
  });

  const put = (values: Float32Array, dims: readonly number[]) => np.array(values).reshape(dims);
  const [x, dy] = [put(numbers.x, dims), put(numbers.dy, dims)];
  const [weight, bias] = [put(numbers.weight, vector), put(numbers.bias, vector)];
  const compute = () => both(x.ref, weight.ref, bias.ref, dy.ref);
  const pending: Jax[] = []; // It is lazy: what nobody waits for is never computed.
  return {
    forward: () => void pending.push(forward(x.ref, weight.ref, bias.ref)),
    both: () => void pending.push(...compute()),
    settle: async () => {
      await blockUntilReady(pending);
      for (const array of pending.splice(0)) array.dispose();
    },
    results: async () => {
      // To read an array consumes it.
      const made = await Promise.all(compute().map((array) => array.data()));
      const [y, dx, gradWeight, gradBias] = made;
      return { y, dx, gradWeight, gradBias };
    },
    dispose: () => {
      for (const array of [x, dy, weight, bias]) array.dispose();
    },
  };
}
