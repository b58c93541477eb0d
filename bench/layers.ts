/**
 * `deno task bench:layers`: what a layer costs the host on WebGPU, in a training step of a ResNet-50's 53 batch norms, call by
 * call and with each direction in one batch. First on a GPUDevice that does nothing, so that only our own JavaScript is
 * timed; then on the adapter at hand, where the implementation's part comes in.
 */

import { requestWebGpuDevice, type WebGpuDevice, webgpuDevice } from "../kernels/webgpu_device.ts";
import { loadDawn } from "../tests/load_dawn.ts";
import { commandLine, integer } from "./command.ts";
import { median } from "./measure.ts";
import { nullGpu } from "../tests/null_gpu.ts";
import { paragraph, section, table, writeSection } from "./report.ts";
import { layersOf, stepper } from "./resnet.ts";

/** Goal: microseconds per layer and direction, inside a batch. */
const GOAL = 60;
/** Images per step: what they cost the host depends on their number as little as on what they show. */
const IMAGES = 8;
/** Steps on a software adapter, which takes seconds for each. */
const SOFTWARE_ROUNDS = 7;

const HELP = `\
Times what a layer of a ResNet-50 costs the host on WebGPU: our own JavaScript, and the adapter's.

Usage: deno task bench:layers [flags]

  --dawn         Dawn (npm:webgpu) instead of the runtime's own WebGPU
  --quick N      so many rounds (31)
  --write        write the section of bench/README.md`;

const { has, value } = commandLine(HELP);
const rounds = integer("--quick", value("quick", "31"));

/** Microseconds per layer and direction: medians, as lines of the table. */
async function lines(name: string, device: WebGpuDevice, image: number): Promise<string[][]> {
  const turns = device.info.isFallbackAdapter ? Math.min(rounds, SOFTWARE_ROUNDS) : rounds;
  const step = stepper(device, layersOf(device, IMAGES, image));
  const all: string[][] = [];
  for (const together of [false, true]) {
    const times: [number, number][] = [];
    for (let round = -Math.ceil(turns / 2); round < turns; round++) {
      const time = step(together);
      await device.gpuDevice.queue.onSubmittedWorkDone();
      if (round >= 0) times.push(time);
    }
    const each = [0, 1].map((i) => 1e3 * median(times.map((time) => time[i])) / 53);
    all.push([name, together ? "in a batch" : "call by call", ...each.map((us) => us.toFixed(1))]);
  }
  return all;
}

const nothing = nullGpu();
const idle = webgpuDevice(nothing.gpuDevice);
const rows = await lines("nothing: our own JavaScript", idle, 224);
const step = stepper(idle, layersOf(idle, IMAGES, 224));
for (let i = 0; i < 10; i++) step(true);
const before = nothing.asked();
for (let i = 0; i < 100; i++) step(true);
const grown = Object.entries(nothing.asked()).map(([name, count]) =>
  `${(count - before[name as keyof typeof before]) / 100} ${name}`
);
const gpu: GPU = has("dawn") ? await loadDawn() : navigator.gpu;
if (await gpu?.requestAdapter()) {
  await using device = await requestWebGpuDevice({ gpu });
  // Software computes on the cores that the host needs: next to nothing, then.
  const image = device.info.isFallbackAdapter ? 32 : 224;
  rows.push(
    ...await lines(`${device.info.name}, ${has("dawn") ? "Dawn" : "Deno's own"}`, device, image),
  );
}
const [, [, , ...inBatch]] = rows;
const met = Math.max(...inBatch.map(Number)) <= GOAL;
const text = section(
  paragraph(
    `Microseconds per layer and direction until the calls of a step have returned, ${IMAGES} images; medians of up to ` +
      `${rounds} steps. Goal inside a batch: ${GOAL} us, which our own part ${
        met ? "meets" : "misses"
      }.`,
  ),
  table([["GPUDevice", "launched", "forward", "backward"], ...rows]),
  paragraph(
    `A step in the steady state asks for ${
      grown.join(", ")
    }; nothing is left over after 100 of them.`,
  ),
);
console.log(text);
if (has("write")) await writeSection("layers", text);
Deno.exit(); // Dawn would keep the process alive.
