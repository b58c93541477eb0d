/**
 * `deno bench`: what each device makes of the bytes that an operation moves, beside a plain copy that moves as many. Results
 * are compared with float64 before anything is timed. A name says how many bytes an iteration moves, so that iterations per
 * second are a throughput.
 */

import {
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  type Device,
  region,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormForward,
  toArray,
} from "../mod.ts";
import {
  type BatchShape,
  elementsOf,
  EPS,
  extentsOf,
  numbersOf,
  place,
  titleOf,
} from "./batches.ts";
import { gpus, ONCE, QUICK, reference, type Subject, wasm } from "./devices.ts";
import { assertRight, errorsOf } from "./errors.ts";
import { enough } from "./measure.ts";

/** Passes over the tensor if nothing stays in cache: forward reads it twice and writes once, backward reads two twice. */
const PASSES = { inference: 2, forward: 3, backward: 5, "synchronised step": 8 } as const;
type Work = keyof typeof PASSES;
const RANKS = 2;

/** Everything on one batch: forward, backward, inference, and both over two ranks of this thread. */
function worksOf<A>({ device, most }: Subject<A>, shape: BatchShape) {
  const numbers = numbersOf(shape);
  const { state, x, dy } = place(device, shape, numbers);
  const ranks = Array.from(
    { length: RANKS },
    (_, rank) => place(device, shape, numbers, { rank, worldSize: RANKS }),
  );
  const made = batchNormForward(state, x, { device });
  const train = (scope: Device<A>) => batchNormForward(state, x, { device: scope });
  const back = (scope: Device<A>) => batchNormBackward(made.saved, dy, { device: scope });
  const infer = (scope: Device<A>) => batchNormInfer(state, x, { device: scope });
  const step = (scope: Device<A>) =>
    runRanks(RANKS, async (group) => {
      const { state, x, dy } = ranks[group.rank];
      const { output, saved } = await syncBatchNormForward(state, x, { device: scope, group });
      const { gradInput } = await syncBatchNormBackward(saved, dy, { device: scope, group });
      return { output, gradInput };
    });
  const discard = (body: (scope: Device<A>) => unknown) => () =>
    region(device, (scope) => {
      body(scope);
    });
  const runs: Record<Work, () => unknown> = {
    ...{ inference: discard(infer), forward: discard(train), backward: discard(back) },
    "synchronised step": () =>
      region(device, async (scope) => {
        await step(scope);
      }),
  };
  const check = () =>
    region(device, async (scope) => {
      const y = await toArray(scope, train(scope).output);
      const dx = await toArray(scope, back(scope).gradInput);
      assertRight(errorsOf(shape, numbers, { y, dx }), most);
      const parts = await step(scope);
      const whole = async (name: "output" | "gradInput") => {
        const all = await Promise.all(parts.map((part) => toArray(scope, part[name])));
        return Float32Array.from(all.flatMap((part) => [...part]));
      };
      const together = { y: await whole("output"), dx: await whole("gradInput") };
      assertRight(errorsOf(shape, numbers, together), most);
      checkInference(await toArray(scope, infer(scope)));
    });
  /** The running statistics are 0 and 1. */
  const checkInference = (y: Float32Array) => {
    const { channels, inner } = extentsOf(shape);
    const run = shape.format === "channelsLast" ? 1 : inner;
    const wrong = y.findIndex((value, p) => {
      const c = Math.floor(p / run) % channels;
      const expected = numbers.x[p] / Math.sqrt(1 + EPS) * numbers.weight[c] + numbers.bias[c];
      return !(Math.abs(value - expected) <= most);
    });
    if (wrong >= 0) throw new RangeError(`wrong: element ${wrong} of inference is ${y[wrong]}`);
  };
  return { runs, check };
}

/** Groups that have their copy. */
const limited = new Set<string>();

/** Registers a subject's benchmarks: a group per work and shape, its baseline the copy that is the subject's limit. */
async function register<A>(subject: Subject<A>): Promise<void> {
  const { name, shapes, copy, settle, software } = subject;
  const effort = QUICK ? ONCE : software ? { n: 3, warmup: 1 } : {};
  for (const shape of shapes) {
    const { runs, check } = worksOf(subject, shape);
    await check();
    for (const work of Object.keys(PASSES) as Work[]) {
      const moved = PASSES[work] * elementsOf(shape) * Float32Array.BYTES_PER_ELEMENT;
      const group = `${work} ${titleOf(shape)}, ${sizeOf(moved)}${settle ? `, ${name}` : ""}`;
      const add = async (who: string, run: () => unknown, baseline: boolean) => {
        const title = `${who}: ${work} ${titleOf(shape)}, ${sizeOf(moved)}`;
        if (!settle) {
          // To wait for a synchronous call would cost it a microtask.
          const fn = work === "synchronised step" && who === name
            ? async () => void await run()
            : () => void run();
          Deno.bench({ name: title, group, baseline, fn, ...effort });
          return;
        }
        // A wait takes Deno's own WebGPU 10 ms, whatever there is to wait for: one for many calls, then.
        const calls = software || QUICK ? 1 : await enough({ run, settle });
        const fn = async () => {
          for (let i = 0; i < calls; i++) await run();
          await settle();
        };
        Deno.bench({ name: `${title}, ${calls} times`, group, baseline, fn, ...effort });
      };
      if (!limited.has(group)) await add("plain copy", copy(moved / 2), true);
      limited.add(group);
      await add(settle ? "WebGPU" : name, runs[work], false);
    }
  }
}

function sizeOf(bytes: number): string {
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e3).toFixed(1)} kB`;
}

await register(await wasm(1));
await register(await wasm(2));
await register(reference());
for (const gpu of await gpus()) await register(gpu);
