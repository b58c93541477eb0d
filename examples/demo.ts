/**
 * `deno task demo`: shows on real data that replicas with syncbn learn what one process learns.
 *
 * @module
 */

import { type Device, type ReferenceArray, referenceDevice } from "../mod.ts";
import { chart } from "./chart.ts";
import { compare, type CompareOptions } from "./compare.ts";
import { type Digits, readDigits } from "./digits.ts";
import { HELP, parseFlags } from "./flags.ts";
import { progressBar, progressLines } from "./progress.ts";
import { judge, table, TABLE_NOTES } from "./report.ts";

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
  return await demonstrate(chooseDevice(command.device), digits, command.options);
}

/** Both choices are the reference device as long as there is no other. */
function chooseDevice(_name: "auto" | "cpu"): Device<ReferenceArray> {
  return referenceDevice();
}

async function demonstrate<A>(
  device: Device<A>,
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
  console.log(`Device: ${device.info.name}\n`);

  const encoder = new TextEncoder();
  const write = (text: string): void => {
    Deno.stdout.writeSync(encoder.encode(text));
  };
  const onProgress = Deno.stdout.isTerminal()
    ? progressBar(write, () => performance.now())
    : progressLines(write);
  const comparison = await compare(device, digits, options, onProgress);

  const verdict = judge(comparison);
  console.log(`\n${table(comparison)}\n\n${TABLE_NOTES}\n\n${verdict.text}`);
  await Deno.writeTextFile(CHART, chart(comparison));
  console.log(`Chart: ${CHART}`);
  return verdict.kept ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
