/**
 * jax-js and TensorFlow.js on their WebGPU backends, where they run on the adapter at hand.
 *
 * Neither has a fused batch norm with statistics of the batch: both compute it by the operators that they have, jax-js in one
 * compiled function.
 */

import { type Numbers, numbersOf } from "../batches.ts";
import { assertRight, errorsOf } from "../errors.ts";
import { workTimes } from "../measure.ts";
import { type Jax, jaxCalls, type JaxModule } from "../peers/jax.ts";
import type { Packages } from "../peers/packages.ts";
import { buildBundle, disposeAll, type Tf, tfjsCalls } from "../peers/tfjs.ts";
import type { Case } from "./cases.ts";
import type { PeerTimes } from "./measured.ts";
import { MEAN } from "./ours.ts";

/** What float32 without care may be off by at a mean of 1e3. */
const WRONG = 1e-2;

/** A peer, or why it is not measured. */
export interface Peer {
  readonly name: string;
  readonly version: string;
  readonly missing: string | null;
  /** Checks and times a plain float32 case. */
  readonly measure: (one: Case, rounds: number) => Promise<PeerTimes>;
}

/** A batch in place: what launches, and what waits for everything that was launched. */
interface Calls {
  readonly forward: () => void;
  readonly both: () => void;
  readonly settle: () => Promise<unknown>;
  readonly results: () => Promise<{ readonly y: Float32Array; readonly dx: Float32Array }>;
  readonly dispose: () => void;
}

/** Loads both. They take the GPU from `navigator`. */
export async function openPeers(packages: Packages, folder: URL): Promise<readonly Peer[]> {
  return [await jax(packages), await tfjs(packages, folder)];
}

async function jax(packages: Packages): Promise<Peer> {
  const name = "jax-js WebGPU";
  try {
    const module = packages.load("@jax-js/jax") as JaxModule;
    if (!(await module.init("webgpu")).includes("webgpu")) {
      throw new Error("its WebGPU backend does not start");
    }
    module.defaultDevice("webgpu");
    const open = (one: Case, numbers: Numbers): Calls => {
      const { forward, both, dispose } = jaxCalls(module, one.batch, numbers);
      const pending: Jax[] = []; // It is lazy: what nobody waits for is never computed.
      return {
        forward: () => void pending.push(forward()),
        both: () => void pending.push(...both()),
        settle: async () => {
          await module.blockUntilReady(pending);
          for (const array of pending.splice(0)) array.dispose();
        },
        results: async () => {
          const [y, dx, ...rest] = both();
          for (const array of rest) array.dispose();
          return { y: await y.data(), dx: await dx.data() };
        },
        dispose,
      };
    };
    return peer(name, `jax-js ${packages.versions["@jax-js/jax"]}`, open);
  } catch (error) {
    return absent(name, packages.reason(error));
  }
}

/** Its WebGPU backend, as far as it is used here. */
interface TfWithBackend extends Tf {
  readonly backend: () => {
    readonly device: GPUDevice;
    readonly commandEncoder: GPUCommandEncoder | null;
    readonly submitQueue: () => void;
  };
}

async function tfjs(packages: Packages, folder: URL): Promise<Peer> {
  const name = "tfjs WebGPU";
  try {
    const bundle = new URL("tfjs_webgpu.cjs", folder);
    await buildBundle(packages, bundle, {
      exports: `export * as webgpu from "@tensorflow/tfjs-backend-webgpu";`,
      // It looks for the GPU only where there is a window.
      banner: "var window = globalThis;",
    });
    const tf = packages.load(decodeURIComponent(bundle.pathname)) as TfWithBackend;
    if (!await tf.setBackend("webgpu")) throw new Error("its WebGPU backend does not start");
    const open = (one: Case, numbers: Numbers): Calls => {
      const { forward, both, dispose } = tfjsCalls(tf, one.batch, numbers);
      return {
        forward: () => forward().dispose(),
        both: () => disposeAll(both()),
        settle: () => {
          const backend = tf.backend();
          if (backend.commandEncoder !== null) backend.submitQueue();
          return backend.device.queue.onSubmittedWorkDone();
        },
        results: async () => {
          const made = both();
          const [y, dx] = await Promise.all([made.value.data(), made.grads[0].data()]);
          disposeAll(made);
          return { y, dx };
        },
        dispose,
      };
    };
    return peer(name, `tfjs ${packages.versions["@tensorflow/tfjs-core"]}`, open);
  } catch (error) {
    return absent(name, packages.reason(error));
  }
}

function peer(name: string, version: string, open: (one: Case, numbers: Numbers) => Calls): Peer {
  return {
    ...{ name, version, missing: null },
    measure: async (one, rounds) => {
      const numbers = numbersOf(one.batch, { mean: MEAN[one.dtype] });
      const { forward, both, settle, results, dispose } = open(one, numbers);
      try {
        const errors = errorsOf(one.batch, numbers, await results());
        assertRight(errors, WRONG);
        const timed = [forward, both].map((run) => ({ run, settle }));
        const [forwardTime, bothTime] = await workTimes(timed, rounds);
        return { forward: forwardTime, both: bothTime, errors };
      } finally {
        dispose();
      }
    },
  };
}

function absent(name: string, missing: string): Peer {
  const measure = () => Promise.reject(new Error(missing));
  return { name, version: "", missing, measure };
}
