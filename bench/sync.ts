/**
 * `deno task bench:sync`: what synchronizing adds to a training step of a ResNet-50's 53 batch norms on the Wasm device: one
 * rank that is answered at once, and two ranks, in workers and under MPI; beside the same phases in plain C. And where it
 * goes: each rank notes when it comes to a collective and when it leaves.
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
import { atMost, goalSection, type Seen, type Verdict } from "./goals.ts";
import { median } from "./measure.ts";
import { FAMILIES, type Family, GROUPS, inThread, launch, pathOf, run } from "./ranks.ts";
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
import { aligned, drawSteps, gatherSteps, noting, type Step, stepOf, typical } from "./trace.ts";

export interface StepOptions {
  readonly batch: number;
  /** Steps of each kind before those that count: V8 compiles during some twenty, in which collectives take three times as long. */
  readonly warmUp: number;
  readonly rounds: number;
  /** Extent that images are shrunk to, for a quick run; 224 in a ResNet-50. */
  readonly image: number;
}

const RANKS = 2;
const LAYERS = 53;
/** The row of the path to a group and back. */
const PATH = "answered at once";

/** A step's medians, and every synchronised one as all ranks went through it. */
interface Traced extends StepTimes {
  /** Of what a synchronised step takes longer than the local one before it, in ms: the machine's speed changes by the second. */
  readonly adds: number;
  readonly steps: readonly (readonly Step[])[];
}

/** What a rank does: times steps with its own statistics and with everybody's; all ranks begin each of them together. */
export async function timeSteps(group: ProcessGroup, options: StepOptions): Promise<Traced> {
  await using device = await wasmDevice();
  const layers = layersOf(device, options.batch, options.image);
  const meetings: [number, number][] = [];
  const effects = { device, group: noting(group, meetings) };
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
  const steps: (readonly Step[])[] = [];
  for (let round = -options.warmUp; round < options.rounds; round++) {
    for (const [kind, functions] of Object.entries({ local, sync })) {
      meetings.length = 0;
      await group.barrier();
      const began = performance.now();
      await step(functions);
      const ended = performance.now();
      if (round < 0) continue;
      times[kind as keyof typeof times].push(ended - began);
      if (kind === "sync" && group.worldSize > 1) {
        steps.push(await gatherSteps(group, { began, ended, meetings }));
      }
    }
  }
  return { ...mediansOf(times.local, times.sync), steps };
}

function mediansOf(local: number[], sync: number[]): Omit<Traced, "steps"> {
  const adds = sync.map((time, i) => time - local[i]);
  return { local: median(local), sync: median(sync), adds: median(adds) };
}

/** The same of one rank whose group answers at once, as if the other had nothing: the path to a group and back. */
export function timePath(group: ProcessGroup, options: StepOptions): Promise<Traced> {
  return timeSteps({ ...group, worldSize: 2, allReduce: async (local) => await local }, options);
}

const SECONDS = 120;

/** The same phases in C: the floor of what two ranks lose by meeting that share a machine's memory. */
async function inC(family: Family, { batch, image, rounds }: StepOptions): Promise<Traced> {
  const folder = await Deno.makeTempDir({ prefix: "syncbn-steps-" });
  try {
    const program = `${folder}/raw_steps`;
    const source = pathOf(import.meta.url, "groups/raw_steps.c");
    await run([`mpicc.${family}`, "-O3", "-o", program, source], SECONDS);
    const command = [program, ...[batch, image, rounds, SECONDS + 2].map(String)];
    const said = await run(launch(family, RANKS, command), SECONDS);
    const lines: unknown[] = said.trim().split("\n").map((line) => JSON.parse(line));
    const local = lines.filter((line) => !Array.isArray(line)) as { readonly local: number }[];
    const steps = lines.filter(Array.isArray).map((all: number[][]) => aligned(all.map(stepOf)));
    const sync = steps.map(([{ began, ended }]) => ended - began);
    return { ...mediansOf(local.map(({ local }) => local), sync), steps };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const HELP = `\
Times training steps of a ResNet-50's batch norms on Wasm, with each rank's own statistics and
synchronised: one rank whose group answers at once, two in workers and under MPI; and the same
phases in C.

Usage: deno task bench:sync [flags]

  --machine NAME   what the processor is called
  --quick          one round of small images
  --trace          draw one step of each group, rank by rank: out/sync.svg, out/sync.json
  --write          write the section of bench/README.md, and bench/sync.svg`;

/** Whatever steps are timed on, by its name in the table. */
function subjects(options: StepOptions): Readonly<Record<string, () => Promise<Traced>>> {
  const module = import.meta.url;
  const ours = Object.entries(GROUPS).map(([name, runner]) =>
    [
      name,
      () => runner<StepOptions, Traced>(RANKS, { module, name: "timeSteps" }, options),
    ] as const
  );
  const floors = (Object.keys(FAMILIES) as Family[]).map((family) =>
    [`C, ${FAMILIES[family]}`, () => inC(family, options)] as const
  );
  const path = () => inThread<StepOptions, Traced>(1, { module, name: "timePath" }, options);
  return { [PATH]: path, ...Object.fromEntries([...ours, ...floors]) };
}

/** What the path adds, and what ours spend in collectives once all have come, in parts of a step. */
function verdicts(measured: Readonly<Record<string, Traced>>): Verdict[] {
  const path = measured[PATH];
  const own = Object.keys(GROUPS).filter((name) => name in measured).map((where): Seen => {
    const { sync, steps } = measured[where];
    return { value: 100 * typical(steps).after / sync, where };
  });
  return [
    atMost(
      "the path to a group that answers at once adds at most 2 % to a step",
      path ? [{ value: 100 * path.adds / path.local, where: PATH }] : [],
      2,
      " %",
    ),
    atMost("collectives take at most 3 % of a step once the last rank has come", own, 3, " %"),
  ];
}

const HEAD = ["group", "local", "synchronised", "sync adds", "waiting", "after", "computing"];

function row(name: string, { local, sync, adds: added, steps }: Traced): readonly string[] {
  const times = [name, figure(local), figure(sync)];
  if (steps.length === 0) return [...times, "", "", "", ""];
  const { waiting, after, computing } = typical(steps);
  const adds = `${figure(added)} (${(100 * added / local).toFixed(0)} %)`;
  const each = `${figure(after)} (${(1000 * after / (2 * LAYERS)).toFixed(0)} us each)`;
  return [...times, adds, figure(waiting), each, figure(computing)];
}

async function main(): Promise<void> {
  const { has, value } = commandLine(HELP);
  const options: StepOptions = has("quick")
    ? { batch: 2, warmUp: 1, rounds: 1, image: 64 }
    : { batch: 8, warmUp: 25, rounds: 25, image: 224 };
  const measured: Record<string, Traced> = {};
  const missing: string[] = [];
  const traces: Record<string, readonly Step[]> = {};
  for (const [name, measure] of Object.entries(subjects(options))) {
    try {
      const traced = await measure();
      measured[name] = traced;
      const length = ([{ began, ended }]: readonly Step[]) => ended - began;
      const inOrder = [...traced.steps].sort((a, b) => length(a) - length(b));
      if (inOrder.length > 0) traces[name] = inOrder[inOrder.length >> 1];
    } catch (error) {
      missing.push(`53 batch norms, ${name}: not measured, ${(error as Error).message}.`);
    }
  }
  const { machine, date } = captionOf(value("machine", NOBODY));
  const { batch, image, rounds, warmUp } = options;
  const text = section(
    paragraph(
      // The command comes first, where no line ends within it, whatever the machine is called.
      `By \`deno task bench:sync\`, on ${machine}, Deno ${Deno.version.deno}; ${date}. Forward and backward of ` +
        `${LAYERS} layers, ${batch} images of ${image}x${image} per rank, one thread per rank, two ranks but where one is ` +
        `answered at once; ` +
        `medians of ${rounds} steps of each kind in turns, in ms, which both ranks begin together, after ${warmUp} in which V8 ` +
        `compiles; what sync adds is the median over pairs of a step and the local one before it. Of a synchronised ` +
        `step: waiting until the last rank has come to a collective (skew, whatever the transport), from then to ` +
        `having the total (folding, copying, waking up), and computing, which is all else. C is the same passes over ` +
        `memory in plain loops, with MPI_Allreduce.`,
    ),
    table([HEAD, ...Object.entries(measured).map(([name, traced]) => row(name, traced))]),
    ...goalSection(verdicts(measured)),
    ...list(missing),
  );
  console.log(text);
  if (has("trace")) {
    await Deno.mkdir("out", { recursive: true });
    await Deno.writeTextFile("out/sync.json", JSON.stringify(traces));
    await Deno.writeTextFile("out/sync.svg", drawSteps(traces));
  }
  if (!has("write")) return;
  await writeSection("sync", text);
  await Deno.writeTextFile(new URL("sync.svg", import.meta.url), drawSteps(traces));
}

// Not awaited: the ranks of this thread load this module, which must be done by then.
if (import.meta.main) main();
