/**
 * `deno task tune`: which choices of the plan are the fastest on the adapter at hand. One choice after the other is varied,
 * and the fastest value kept; everything that is measured, and the result, goes to `tuned.json` by the adapter's name.
 */

import { explain, requestWebGpuDevice, webgpuDevice } from "../../kernels/webgpu_device.ts";
import type { Choices } from "../../kernels/webgpu_device.ts";
import { commandLine, integer, refuse } from "../command.ts";
import { type Case, titleOfCase } from "./cases.ts";
import { measureOurs } from "./ours.ts";
import { gpuAtHand } from "./ranks.ts";

const TUNED = new URL("tuned.json", import.meta.url);
/** What is tried, in this order; the first value is where it starts. */
const CANDIDATES: { readonly [K in keyof Choices]?: readonly Choices[K][] } = {
  workgroup: [256, 128, 64],
  workgroups: [4096, 1024, 2048, 8192, 16_384],
  ahead: [4, 1, 2, 8],
  walked: [4, 1, 2, 8, 16],
  packs: [true, false],
  cacheBytes: [0, 4, 8, 16, 32, 48, 64, 96].map((mebibytes) => mebibytes * 2 ** 20),
};
const batches = (shapes: readonly (readonly number[])[]): readonly Case[] =>
  shapes.flatMap((shape) =>
    (["channelsFirst", "channelsLast"] as const).map((format): Case => ({
      ...{ batch: { shape, format }, dtype: "float32", fused: false },
    }))
  );
/** By how much a choice must be faster to count: less is noise. */
const WORTH = 0.98;
/** Batches that fit caches, and one that does not. */
const HARDWARE = batches([[32, 64, 56, 56], [32, 256, 14, 14], [64, 64, 112, 112]]);
const SOFTWARE = batches([[4, 8, 6, 6]]);

const HELP = `\
Finds the choices of the plan that are the fastest on this GPU, and prints them.

Usage: deno task tune [flags]

  --dawn       Dawn (npm:webgpu) instead of the runtime's own WebGPU
  --quick N    so many rounds (5)
  --write      write what was measured to bench/gpu/tuned.json`;

const { values } = commandLine(HELP, {
  dawn: { type: "boolean", default: false },
  quick: { type: "string", default: "5" },
  write: { type: "boolean", default: false },
});
const rounds = integer("--quick", values.quick);
const gpu = await gpuAtHand(values.dawn);
const adapter = await gpu?.requestAdapter({ powerPreference: "high-performance" });
if (!adapter) refuse("Cannot tune as there must be a WebGPU adapter: none was found");
const clock = "timestamp-query";
const requiredFeatures = adapter.features.has(clock) ? [clock] as const : [];
await using owner = await requestWebGpuDevice({ gpu, requiredFeatures });
const { name, isFallbackAdapter: software } = owner.info;
const cases = software ? SOFTWARE : HARDWARE;

/** Forward and backward of every batch, in ms, with some choices. */
async function measure(plan: Partial<Choices>): Promise<number[]> {
  using device = webgpuDevice(owner.gpuDevice, { plan });
  const times: number[] = [];
  for (const one of cases) {
    const { gpu, wall } = await measureOurs(device, one, rounds);
    const { forward, backward } = gpu ?? wall;
    times.push(forward + backward);
  }
  return times;
}

const { subgroups } = explain(owner, [2, 2]).choices;
let best: Partial<Choices> = { subgroups };
const start = await measure(best);
let [bestScore] = [1];
const seen: { readonly plan: Partial<Choices>; readonly score: number }[] = [];
const candidates = { ...CANDIDATES, subgroups: ["none" as const, subgroups] };
for (const [choice, options] of Object.entries(candidates)) {
  for (const option of new Set<unknown>(options)) {
    const plan = { ...best, [choice]: option };
    const times = await measure(plan);
    // The geometric mean of the batches' times, as a multiple of the first ones.
    const logs = times.map((time, i) => Math.log(time / start[i]));
    const score = Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length);
    seen.push({ plan, score });
    console.error(`${score.toFixed(3)}: ${JSON.stringify(plan)}`);
    if (score < WORTH * bestScore) [best, bestScore] = [plan, score];
  }
}
if (software) console.error("A software adapter: what was found says nothing of GPUs.");
console.log(JSON.stringify(best));
if (values.write) {
  const known = await Deno.readTextFile(TUNED).then(JSON.parse, () => ({}));
  const found = {
    date: new Date().toISOString().slice(0, 10),
    clock: owner.gpuDevice.features.has(clock) ? "GPU" : "wall",
    batches: cases.map(titleOfCase),
    ...{ plan: best, times: bestScore, seen },
  };
  const text = JSON.stringify({ ...known, [name]: found }, null, 2);
  await Deno.writeTextFile(TUNED, `${text}\n`);
}
Deno.exit(); // Dawn would keep the process alive.
