/** jax-js, on its Wasm backend here and on its WebGPU backend in `../gpu/`. */

import { type BatchShape, EPS, extentsOf, type Numbers } from "../batches.ts";
import type { Packages } from "./packages.ts";
import { type Candidate, plainLayout, type Subject, timeCalls, type Work } from "./subject.ts";

const NAME = "jax-js wasm";

/** An array; operators consume their operands, and `ref` is another reference to the same. */
export interface Jax {
  readonly ref: Jax;
  readonly add: (other: Jax | number) => Jax;
  readonly sub: (other: Jax) => Jax;
  readonly mul: (other: Jax | number) => Jax;
  readonly reshape: (dims: readonly number[]) => Jax;
  readonly data: () => Promise<Float32Array>;
  readonly dispose: () => void;
}

interface Reduction {
  (x: Jax, axes: readonly number[], options: { readonly keepdims: boolean }): Jax;
}

/** Where it computes. */
type JaxBackend = "wasm" | "webgpu";

/** The part of its interface that is used here. */
export interface JaxModule {
  readonly init: (device: JaxBackend) => Promise<readonly string[]>;
  readonly defaultDevice: (device: JaxBackend) => void;
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
export async function jaxSubject(packages: Packages, threads: 1 | 2): Promise<Candidate> {
  const cores = Object.getOwnPropertyDescriptor(navigator, "hardwareConcurrency");
  try {
    Object.defineProperty(navigator, "hardwareConcurrency", { value: threads, configurable: true });
    const jax = threads === 1
      ? packages.load("@jax-js/jax") as JaxModule
      : await import(packages.url("@jax-js/jax/dist/index.js").href) as JaxModule;
    await jax.init("wasm");
    jax.defaultDevice("wasm");
    const version = `jax-js ${packages.versions["@jax-js/jax"]}`;
    return { ...subjectOf(jax, threads), version };
  } catch (error) {
    return { name: NAME, threads, missing: packages.reason(error) };
  } finally {
    if (cores) Object.defineProperty(navigator, "hardwareConcurrency", cores);
    else Reflect.deleteProperty(navigator, "hardwareConcurrency"); // The prototype's shows again.
  }
}

/** Its batch norm on a batch that is in place; everything returned is the caller's to dispose. */
export interface JaxCalls {
  readonly forward: () => Jax;
  /** y, dx, dweight, dbias. */
  readonly both: () => readonly Jax[];
  readonly dispose: () => void;
}

/** Puts a batch in place. */
export function jaxCalls(
  { jit, numpy: np }: JaxModule,
  shape: BatchShape,
  numbers: Numbers,
): JaxCalls {
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

  const place = (values: Float32Array, dims: readonly number[]) => np.array(values).reshape(dims);
  const [x, dy] = [place(numbers.x, dims), place(numbers.dy, dims)];
  const [weight, bias] = [place(numbers.weight, vector), place(numbers.bias, vector)];
  return {
    forward: () => forward(x.ref, weight.ref, bias.ref),
    both: () => both(x.ref, weight.ref, bias.ref, dy.ref),
    dispose: () => {
      for (const array of [x, dy, weight, bias]) array.dispose();
    },
  };
}

function subjectOf(jax: JaxModule, threads: number): Omit<Subject, "version"> {
  return {
    name: NAME,
    threads,
    open: (shape, numbers) => {
      const { forward, both, dispose } = jaxCalls(jax, shape, numbers);
      const calls = {
        forward: async () => {
          const y = forward();
          await jax.blockUntilReady(y);
          y.dispose();
        },
        both: async () => {
          const made = both();
          await jax.blockUntilReady(made);
          for (const array of made) array.dispose();
        },
      };
      return Promise.resolve({
        contenders: [{
          name: NAME,
          threads,
          works: ["forward", "both"],
          time: (work: Work, count: number) => timeCalls(calls[work as keyof typeof calls], count),
          results: async () => {
            const [y, dx, gradWeight, gradBias] = await Promise.all(
              both().map((array) => array.data()), // Which consumes it.
            );
            return { y, dx, gradWeight, gradBias };
          },
        }],
        [Symbol.asyncDispose]: () => Promise.resolve(dispose()),
      });
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
