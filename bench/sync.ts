/**
 * `deno task bench:sync`: what synchronizing adds to a training step of a ResNet-50's 53 batch norms on the Wasm device: one
 * rank alone, and two ranks at once, in workers and under MPI.
 */

import { wasmDevice } from "../kernels/wasm_device.ts";
import {
  batchNormBackward,
  batchNormForward,
  type ProcessGroup,
  release,
  syncBatchNormBackward,
  syncBatchNormForward,
} from "../mod.ts";
import { commandLine } from "./command.ts";
import type { StepTimes } from "./groups/measured.ts";
import { median } from "./measure.ts";
import { GROUPS, inThread } from "./ranks.ts";
import {
  captionOf,
  figure,
  list,
  NOBODY,
  paragraph,
  section,
  table,
  writeSection,
} from "./report.ts";
import { layersOf } from "./resnet.ts";

export interface StepOptions {
  readonly batch: number;
  readonly rounds: number;
  /** Extent that images are shrunk to, for a quick run; 224 in a ResNet-50. */
  readonly image: number;
}

const RANKS = 2;
const LAYERS = 53;

/** What a rank does: times steps with its own statistics and with everybody's; all ranks begin each of them together. */
export async function timeSteps(group: ProcessGroup, options: StepOptions): Promise<StepTimes> {
  await using device = await wasmDevice();
  const layers = layersOf(device, options.batch, options.image);
  const effects = { device, group };
  const local = { forward: batchNormForward, backward: batchNormBackward, effects: { device } };
  const sync = { forward: syncBatchNormForward, backward: syncBatchNormBackward, effects };
  const step = async ({ forward, backward, effects }: typeof local | typeof sync) => {
    const made = [];
    for (const { state, x } of layers) {
      const one = await forward(state, x, effects as typeof sync.effects);
      release(device, one.output);
      made.push(one);
    }
    for (const [i, { state, saved }] of [...made.entries()].reverse()) {
      // Of local saved and of a group's, as the functions are of one kind.
      const back = await backward(saved as never, layers[i].dy, effects as typeof sync.effects);
      release(device, [state, saved, back], { keep: layers[i] }); // So that the next step finds the memory.
    }
  };
  const times = { local: [] as number[], sync: [] as number[] };
  // The first round warms up.
  for (let round = 0; round <= options.rounds; round++) {
    for (const [kind, functions] of Object.entries({ local, sync })) {
      await group.barrier();
      const start = performance.now();
      await step(functions);
      if (round > 0) times[kind as keyof typeof times].push(performance.now() - start);
    }
  }
  return { local: median(times.local), sync: median(times.sync) };
}

const HELP = `\
Times training steps of a ResNet-50's batch norms on Wasm, with each rank's own statistics and
synchronised: one rank alone, two in workers and under MPI.

Usage: deno task bench:sync [flags]

  --machine NAME   what the processor is called
  --quick          one round of small images
  --write          write the section of bench/README.md`;

async function main(): Promise<void> {
  const { has, value } = commandLine(HELP);
  const options: StepOptions = has("quick")
    ? { batch: 2, rounds: 1, image: 64 }
    : { batch: 8, rounds: 9, image: 224 };
  const rows: string[][] = [];
  const missing: string[] = [];
  const task = { module: import.meta.url, name: "timeSteps" };
  for (const [group, run] of Object.entries({ alone: inThread, ...GROUPS })) {
    const ranks = run === inThread ? 1 : RANKS; // Without another, to synchronize is not to communicate.
    try {
      const { local, sync } = await run<StepOptions, StepTimes>(ranks, task, options);
      const adds = `${figure(sync - local)} (${(100 * (sync / local - 1)).toFixed(0)} %)`;
      const each = `${(1000 * (sync - local) / (2 * LAYERS)).toFixed(0)} us`;
      const cost = ranks === 1 ? ["", ""] : [adds, each];
      rows.push([group, String(ranks), figure(local), figure(sync), ...cost]);
    } catch (error) {
      missing.push(`53 batch norms, ${group}: not measured, ${(error as Error).message}.`);
    }
  }
  const { machine, date } = captionOf(value("machine", NOBODY));
  const { batch, image, rounds } = options;
  const text = section(
    paragraph(
      // The command comes first, where no line ends within it, whatever the machine is called.
      `By \`deno task bench:sync\`, on ${machine}, Deno ${Deno.version.deno}; ${date}. Forward and backward of ` +
        `${LAYERS} layers, ${batch} images of ${image}x${image} per rank, one thread per rank; median of ` +
        `${rounds} steps of each kind in turns, in ms, which both ranks begin together.`,
    ),
    table([["group", "ranks", "local", "synchronised", "sync adds", "per collective"], ...rows]),
    ...list(missing),
  );
  console.log(text);
  if (has("write")) await writeSection("sync", text);
}

// Not awaited: the ranks of this thread load this module, which must be done by then.
if (import.meta.main) main();
