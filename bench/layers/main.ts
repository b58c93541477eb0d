/**
 * `deno task bench:layers`: what a layer costs the host on WebGPU, in a training step of a ResNet-50's 53 batch norms, call by
 * call and with each direction in one batch. First on a GPUDevice that does nothing, so that only our own JavaScript is
 * timed; then on the adapter at hand, where the implementation's part comes in.
 *
 * ```sh
 * deno task bench:layers [--dawn] [--images N] [--quick ROUNDS] [--write]
 * ```
 *
 * @module
 */

import { parseArgs } from "node:util";
import {
  requestWebGpuDevice,
  type WebGpuDevice,
  webgpuDevice,
} from "../../kernels/webgpu_device.ts";
import { paragraph, table } from "../groups/markdown.ts";
import { replaceSection } from "../groups/scale.ts";
import { loadDawn } from "../../tests/load_dawn.ts";
import { nullGpu } from "./null_gpu.ts";
import { type Network, networkOn } from "./step.ts";

const README = new URL("../README.md", import.meta.url);
const MARKERS = ["<!-- layers:begin -->", "<!-- layers:end -->"] as const;
/** Goal of the issue: microseconds per layer and direction, inside a batch. */
const GOAL = 60;
/** Steps on a software adapter, which takes seconds for each. */
const SOFTWARE_ROUNDS = 7;

const { values } = parseArgs({
  options: {
    dawn: { type: "boolean", default: false },
    images: { type: "string", default: "8" },
    quick: { type: "string", default: "31" },
    write: { type: "boolean", default: false },
  },
});
const [images, rounds] = [Number(values.images), Number(values.quick)];

/** Medians of the microseconds per layer and direction. */
async function medians(
  network: Network,
  together: boolean,
  rounds: number,
  settle: () => Promise<unknown>,
) {
  const times: { forward: number; backward: number }[] = [];
  for (let round = -Math.ceil(rounds / 2); round < rounds; round++) {
    const time = network.step(together);
    await settle();
    if (round >= 0) times.push(time);
  }
  const median = (name: "forward" | "backward") =>
    1e3 * times.map((time) => time[name]).sort((a, b) => a - b)[rounds >> 1] / network.layers;
  return [median("forward"), median("backward")];
}

async function lines(name: string, device: WebGpuDevice, image: number): Promise<string[][]> {
  const turns = device.info.isFallbackAdapter ? Math.min(rounds, SOFTWARE_ROUNDS) : rounds;
  const network = networkOn(device, images, image);
  const settle = () => device.gpuDevice.queue.onSubmittedWorkDone();
  const all: string[][] = [];
  for (const together of [false, true]) {
    const times = await medians(network, together, turns, settle);
    all.push([name, together ? "in a batch" : "call by call", ...times.map((us) => us.toFixed(1))]);
  }
  return all;
}

const nothing = nullGpu();
const idle = webgpuDevice(nothing.gpuDevice);
const rows = await lines("nothing: our own JavaScript", idle, 224);
const network = networkOn(idle, images, 224);
for (let i = 0; i < 10; i++) network.step(true);
const before = nothing.asked();
for (let i = 0; i < 100; i++) network.step(true);
const after = nothing.asked();
const grown = Object.entries(after).map(([name, count]) =>
  [name, (count - before[name as keyof typeof before]) / 100] as const
);

{
  const gpu: GPU = values.dawn ? await loadDawn() : navigator.gpu;
  if (await gpu?.requestAdapter()) {
    await using device = await requestWebGpuDevice({ gpu });
    // Software computes on the cores that the host needs: next to nothing, then.
    const image = device.info.isFallbackAdapter ? 32 : 224;
    const whose = values.dawn ? "Dawn" : "Deno's own";
    rows.push(...await lines(`${device.info.name}, ${whose}`, device, image));
  }
}
const [, [, , forward, backward]] = rows;
const met = Math.max(Number(forward), Number(backward)) <= GOAL;
const text = [
  paragraph(
    `Microseconds per layer and direction until the calls of a step have returned, ${images} images; medians of up to ` +
      `${rounds} steps. Goal inside a batch: ${GOAL} us, which our own part ${
        met ? "meets" : "misses"
      }.`,
  ),
  table([["GPUDevice", "launched", "forward", "backward"], ...rows]),
  paragraph(
    `A step in the steady state asks for ${
      grown.map(([name, count]) => `${count} ${name}`).join(", ")
    }; nothing is left over after 100 of them.`,
  ),
].join("\n\n");
console.log(text);
if (values.write) {
  const page = await Deno.readTextFile(README);
  await Deno.writeTextFile(README, replaceSection(page, text, MARKERS));
}
Deno.exit(); // Dawn would keep the process alive.
