/**
 * `deno task demo`: shows on real data that replicas with syncbn learn what one process learns.
 *
 * @module
 */

import { type OwnedWebGpuDevice, requestWebGpuDevice } from "../kernels/webgpu_device.ts";
import { DeviceError, referenceDevice } from "../mod.ts";
import { chart } from "./chart.ts";
import { compare, type CompareOptions } from "./compare.ts";
import { type Digits, readDigits } from "./digits.ts";
import { type DeviceName, HELP, parseFlags } from "./flags.ts";
import { hostLayers } from "./host_layers.ts";
import type { Layers } from "./layers.ts";
import { progressBar, progressLines } from "./progress.ts";
import { judge, table, TABLE_NOTES } from "./report.ts";
import { webgpuLayers } from "./webgpu_layers.ts";

const CHART = "out/demo.svg";

/** Runs the demo and returns its exit code. */
async function main(args: readonly string[]): Promise<number> {
  const digits = await readDigits(
    await Deno.readFile(new URL("./digits.bin.gz", import.meta.url)),
  );
  const command = parseFlags(args, digits.training.count);
  if (command.kind === "help") {
    console.log(HELP);
    return 0;
  }
  if (command.kind === "wrong") {
    console.error(command.message);
    return 2;
  }
  return await demonstrateOn(command.device, digits, command.options);
}

/** Opens the device that was chosen, and closes it in the end. */
async function demonstrateOn(
  name: DeviceName,
  digits: Digits,
  options: CompareOptions,
): Promise<number> {
  await using gpu = name === "cpu" ? null : await requestGpu(name);
  if (gpu) {
    using layers = webgpuLayers(gpu);
    return await demonstrate(layers, digits, options);
  }
  if (name === "webgpu") {
    console.error(
      "Cannot start the demo as --device webgpu must find an adapter: there is none (see --help)",
    );
    return 2;
  }
  return await demonstrate(hostLayers(referenceDevice()), digits, options);
}

/** Any adapter's device, or with auto a hardware one's; null where there is none. */
async function requestGpu(name: "auto" | "webgpu"): Promise<OwnedWebGpuDevice | null> {
  try {
    const gpu = await requestWebGpuDevice();
    if (name === "webgpu" || !gpu.info.isFallbackAdapter) return gpu;
    await gpu[Symbol.asyncDispose]();
    return null;
  } catch (error) {
    if (error instanceof DeviceError && error.code === "unsupported") return null;
    throw error;
  }
}

async function demonstrate<V, A>(
  layers: Layers<V, A>,
  digits: Digits,
  options: CompareOptions,
): Promise<number> {
  try {
    // Before the training, so that nobody waits for a chart that cannot be written.
    await Deno.mkdir("out", { recursive: true });
    await Deno.writeTextFile(CHART, "");
  } catch (error) {
    const { message } = error as Error;
    console.error(`Cannot start the demo as ${CHART} must be writable: ${message.split("\n")[0]}`);
    return 2;
  }
  const { replicas, batch, epochs, seed } = options;
  console.log(
    `${digits.training.count} handwritten digits to learn from, ${digits.test.count} to be judged by; ` +
      `${epochs} ${epochs === 1 ? "epoch" : "epochs"}, seed ${seed}`,
  );
  console.log(`Replicas: ${replicas}, with ${batch} ${batch === 1 ? "image" : "images"} each`);
  console.log(`Device: ${layers.device.info.name}\n`);

  const encoder = new TextEncoder();
  const write = (text: string): void => {
    Deno.stdout.writeSync(encoder.encode(text));
  };
  const onProgress = Deno.stdout.isTerminal()
    ? progressBar(write, () => performance.now())
    : progressLines(write);
  const comparison = await compare(layers, digits, options, onProgress);

  const verdict = judge(comparison);
  console.log(`\n${table(comparison)}\n\n${TABLE_NOTES}\n\n${verdict.text}`);
  await Deno.writeTextFile(CHART, chart(comparison));
  console.log(`Chart: ${CHART}`);
  return verdict.kept ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
