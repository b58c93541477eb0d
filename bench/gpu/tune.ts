/**
 * `deno task tune`: which choices of the plan are the fastest on the adapter at hand. One choice after the other is varied,
 * and the fastest value kept.
 */

import { explain, webgpuDevice } from "../../kernels/webgpu_device.ts";
import type { Choices } from "../../kernels/webgpu_device.ts";
import { commandLine, integer } from "../command.ts";
import { openAdapter } from "./adapter.ts";
import type { Case } from "./cases.ts";
import { measureOurs } from "./ours.ts";

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
  --quick N    so many rounds (5)`;

const { has, value } = commandLine(HELP);
const rounds = integer("--quick", value("quick", "5"));
await using owner = await openAdapter(has("dawn"), {});
const { isFallbackAdapter: software } = owner.info;
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
let bestScore = 1;
const candidates = { ...CANDIDATES, subgroups: ["none" as const, subgroups] };
for (const [choice, options] of Object.entries(candidates)) {
  for (const option of new Set<unknown>(options)) {
    const plan = { ...best, [choice]: option };
    const times = await measure(plan);
    // The geometric mean of the batches' times, as a multiple of the first ones.
    const logs = times.map((time, i) => Math.log(time / start[i]));
    const score = Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length);
    console.error(`${score.toFixed(3)}: ${JSON.stringify(plan)}`);
    if (score < WORTH * bestScore) [best, bestScore] = [plan, score];
  }
}
if (software) console.error("A software adapter: what was found says nothing of GPUs.");
console.log(JSON.stringify(best));
Deno.exit(); // Dawn would keep the process alive.
