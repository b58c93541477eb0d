/**
 * The demo's command line.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { SMALLEST_BATCH } from "./batches.ts";
import type { CompareOptions } from "./compare.ts";

/** Where to compute: on any WebGPU adapter, on the CPU by Wasm, on the CPU by plain loops. */
export type ChosenDevice = "webgpu" | "wasm" | "reference";

/** The same, or on a hardware GPU and else by Wasm. */
export type DeviceName = "auto" | ChosenDevice;

/** Where the replicas are: tasks of one thread, workers, processes. */
export type GroupName = "in-process" | "workers" | "mpi";

/** Whose launcher starts the processes. */
export type MpiName = "openmpi" | "mpich";

/** How progress is shown: as a bar, by one line per run, or as it suits where the output goes. */
export type ProgressName = "auto" | "bar" | "lines";

/** What to run. */
export interface RunCommand {
  readonly kind: "run";
  readonly options: CompareOptions;
  readonly device: DeviceName;
  readonly group: GroupName;
  /** Undefined for whichever is there. */
  readonly mpi: MpiName | undefined;
  readonly progress: ProgressName;
}

/** What the command line asks for; `"wrong"` comes with the one line to print. */
export type Command =
  | RunCommand
  | { readonly kind: "help" }
  | { readonly kind: "wrong"; readonly message: string };

/** What `--help` prints. */
export const HELP = `\
Trains one small network on handwritten digits five times and compares the runs: one process,
the same with its rows reversed, replicas with syncbn, with local batch norm, and without a norm.

Usage: deno task demo [flags]

  --replicas N     number of replicas, 1 to 64 (4)
  --batch N        images per replica and step, 1 to 1437 (2)
  --epochs N       how often every image is seen (6)
  --steps N        stop each run after N steps (all)
  --device NAME    auto, webgpu, wasm or reference: any GPU, software too, or the CPU, by Wasm or by
                   plain loops (auto: a hardware GPU, else Wasm)
  --group NAME     in-process, workers or mpi: replicas are tasks of one thread, threads, or
                   processes; each thread and process has its own device (in-process)
  --mpi NAME       openmpi or mpich: whose mpirun starts the processes (the first that is there)
  --progress NAME  auto, bar or lines (auto: a bar on a terminal)
  --seed N         where first parameters and shuffles come from (1)
  --help           print this

Replicas times batch must be from ${SMALLEST_BATCH} to 1437 images. Under an mpirun of yours the
replicas of --group mpi are its processes.

Writes out/demo.svg. Exits with 1 if syncbn differs from one process by more than 1e-5 in any
parameter within the first 50 steps or by more than one point of accuracy at the end (which --steps
leaves unjudged if it comes first), and with 2 for a wrong flag or if a device, a permission or MPI
is not there.`;

const NUMBERS = {
  replicas: { smallest: 1, largest: 64, usual: 4 },
  batch: { smallest: 1, largest: 1437, usual: 2 },
  epochs: { smallest: 1, largest: 1000, usual: 6 },
  steps: { smallest: 1, largest: 1_000_000, usual: Infinity },
  seed: { smallest: 0, largest: 2 ** 31 - 1, usual: 1 },
} as const;
const DEVICES: readonly DeviceName[] = ["auto", "webgpu", "wasm", "reference"];
const GROUPS: readonly GroupName[] = ["in-process", "workers", "mpi"];
const MPIS: readonly MpiName[] = ["openmpi", "mpich"];
const PROGRESSES: readonly ProgressName[] = ["auto", "bar", "lines"];
const FLAGS = [...Object.keys(NUMBERS), "device", "group", "mpi", "progress", "help"];

/**
 * Reads the command line.
 *
 * @param args the arguments, without the program's name
 * @param images number of images to learn from, the largest possible batch over all replicas
 * @param started asked for `--group mpi`: how many processes a launcher has started, this one among them, if one has
 * @returns what is asked for
 */
export function parseFlags(
  args: readonly string[],
  images: number,
  started: () => number | undefined = () => undefined,
): Command {
  const { values, positionals } = parseArgs({
    args: [...args],
    options: {
      replicas: { type: "string" },
      batch: { type: "string" },
      epochs: { type: "string" },
      steps: { type: "string" },
      seed: { type: "string" },
      device: { type: "string" },
      group: { type: "string" },
      mpi: { type: "string" },
      progress: { type: "string" },
      help: { type: "boolean" },
    },
    // Not strict, since its errors are several lines long and never say what was wanted.
    strict: false,
  });
  const unknown = Object.keys(values).find((name) => !FLAGS.includes(name));
  if (unknown !== undefined) {
    const flag = unknown.length === 1 ? `-${unknown}` : `--${unknown}`;
    return wrong(`${flag} is none of --${FLAGS.join(", --")}`);
  }
  if (positionals.length > 0) {
    return wrong(`it takes flags only: current argument is ${JSON.stringify(positionals[0])}`);
  }
  if (values.help === true) return { kind: "help" };
  if (values.help !== undefined) {
    return wrong(`--help takes no value: current value is ${JSON.stringify(values.help)}`);
  }

  const names = Object.keys(NUMBERS) as (keyof typeof NUMBERS)[];
  for (const name of names) {
    const { smallest, largest } = NUMBERS[name];
    if (!Number.isNaN(toInteger(values[name], NUMBERS[name]))) continue;
    return wrong(
      `--${name} must be an integer from ${smallest} to ${largest}: ${current(values[name])}`,
    );
  }
  const number = (name: keyof typeof NUMBERS): number => toInteger(values[name], NUMBERS[name]);
  const device = oneOf(DEVICES, values.device ?? "auto");
  if (device === undefined) return wrongName("device", DEVICES, values.device);
  const group = oneOf(GROUPS, values.group ?? "in-process");
  if (group === undefined) return wrongName("group", GROUPS, values.group);
  const progress = oneOf(PROGRESSES, values.progress ?? "auto");
  if (progress === undefined) return wrongName("progress", PROGRESSES, values.progress);
  const mpi = oneOf(MPIS, values.mpi);
  if (values.mpi !== undefined) {
    if (mpi === undefined) return wrongName("mpi", MPIS, values.mpi);
    if (group !== "mpi") return wrong(`--mpi must come with --group mpi: the group is ${group}`);
  }

  const ranks = group === "mpi" ? started() : undefined;
  if (ranks !== undefined && values.replicas !== undefined && number("replicas") !== ranks) {
    return wrong(
      `--replicas must be left out, or be what mpirun has started, ${ranks}: ${
        current(values.replicas)
      }`,
    );
  }
  const options = {
    replicas: ranks ?? number("replicas"),
    batch: number("batch"),
    epochs: number("epochs"),
    stopAfter: number("steps"),
    seed: number("seed"),
  };
  const size = options.replicas * options.batch;
  if (size < SMALLEST_BATCH || size > images) {
    return wrong(
      `replicas times batch must be from ${SMALLEST_BATCH} to ${images} images: ` +
        `current value is ${options.replicas} x ${options.batch}`,
    );
  }
  return { kind: "run", options, device, group, mpi, progress };
}

type Value = string | boolean | (string | boolean)[] | undefined;

function toInteger(
  value: Value,
  { smallest, largest, usual }: (typeof NUMBERS)[keyof typeof NUMBERS],
): number {
  if (value === undefined) return usual;
  if (typeof value !== "string" || !/^\d+$/.test(value)) return NaN;
  const integer = Number(value);
  return integer >= smallest && integer <= largest ? integer : NaN;
}

function oneOf<T extends string>(names: readonly T[], value: Value): T | undefined {
  return names.find((name) => name === value);
}

function wrongName(flag: string, names: readonly string[], value: Value): Command {
  const wanted = `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
  return wrong(`--${flag} must be ${wanted}: ${current(value)}`);
}

function current(value: Value): string {
  return typeof value === "string" ? `current value is ${JSON.stringify(value)}` : "it has none";
}

function wrong(reason: string): Command {
  return { kind: "wrong", message: `Cannot start the demo as ${reason} (see --help)` };
}
