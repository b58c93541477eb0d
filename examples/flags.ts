/**
 * The demo's command line.
 *
 * @module
 */

import { SMALLEST_BATCH } from "./batches.ts";
import { integer, on, oneOf, type Program } from "./command_line.ts";
import type { CompareOptions } from "./compare.ts";
import { TRAINING_IMAGES } from "./digits.ts";
import { startError } from "./start_error.ts";

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

/** What the flags say. */
export interface DemoFlags {
  /** Undefined for as many as a launcher has started, and else 4. */
  readonly replicas: number | undefined;
  readonly batch: number;
  readonly epochs: number;
  /** Undefined for all. */
  readonly steps: number | undefined;
  readonly device: DeviceName;
  /** Whether results are to have the same bits for any number of replicas. */
  readonly exact: boolean;
  readonly group: GroupName;
  /** Undefined for whichever is there. */
  readonly mpi: MpiName | undefined;
  readonly progress: ProgressName;
  readonly seed: number;
}

/** What to run. */
export interface RunCommand
  extends Pick<DemoFlags, "device" | "exact" | "group" | "mpi" | "progress"> {
  readonly options: CompareOptions;
}

const REPLICAS = 4;
const GROUPS: readonly GroupName[] = ["in-process", "workers", "mpi"];
const DEVICES: readonly DeviceName[] = ["auto", "webgpu", "wasm", "reference"];
const MPIS: readonly MpiName[] = ["openmpi", "mpich"];
const PROGRESSES: readonly ProgressName[] = ["auto", "bar", "lines"];

/** The demo as its users see it. */
export const DEMO: Program<DemoFlags> = {
  usage: "deno task demo",
  action: "start the demo",
  about: `\
Trains one small network on handwritten digits five times and compares the runs: one process,
the same with its rows reversed, replicas with syncbn, with local batch norm, and without a norm.`,
  flags: {
    replicas: integer({
      ...{ from: 1, to: 64, usual: undefined },
      help: `number of replicas, 1 to 64 (${REPLICAS})`,
    }),
    batch: integer({
      ...{ from: 1, to: TRAINING_IMAGES, usual: 2 },
      help: `images per replica and step, 1 to ${TRAINING_IMAGES}`,
    }),
    epochs: integer({ from: 1, to: 1000, usual: 6, help: "how often every image is seen" }),
    steps: integer({
      ...{ from: 1, to: 1_000_000, usual: undefined },
      help: "stop each run after N steps (all)",
    }),
    device: oneOf(DEVICES, {
      usual: "auto",
      help: "auto, webgpu, wasm or reference: any GPU, software too, or the CPU, by Wasm or by " +
        "plain loops; auto is a hardware GPU, else Wasm",
    }),
    exact: on("compare bits, on the CPU: one digest for any number of replicas"),
    group: oneOf(GROUPS, {
      usual: "in-process",
      help: "in-process, workers or mpi: replicas are tasks of one thread, threads, or " +
        "processes; each thread and process has its own device",
    }),
    mpi: oneOf(MPIS, {
      usual: undefined,
      help: "openmpi or mpich: whose mpirun starts the processes (the first that is there)",
    }),
    progress: oneOf(PROGRESSES, {
      usual: "auto",
      help: "auto, bar or lines: auto is a bar on a terminal, else lines",
    }),
    seed: integer({
      ...{ from: 0, to: 2 ** 31 - 1, usual: 1 },
      help: "where first parameters and shuffles come from",
    }),
  },
  notes: `\
Replicas times batch must be from ${SMALLEST_BATCH} to ${TRAINING_IMAGES} images. Under an mpirun of yours the
replicas of --group mpi are its processes.

Writes out/demo.svg. Exits with 1 if syncbn differs from one process by more than 1e-5 in any
parameter within the first 50 steps or by more than one point of accuracy at the end (which --steps
leaves unjudged if it comes first), with --exact if it differs in any bit, and with 2 for a wrong
flag or if a device, a permission or MPI is not there.`,
};

/**
 * Says what to run, where the flags go together.
 *
 * @param flags what the command line says
 * @param started asked for `--group mpi`: how many processes a launcher has started, this one among them, if one has
 * @returns what is asked for
 * @throws a start error where they do not
 */
export function commandOf(
  flags: DemoFlags,
  started: () => number | undefined,
): RunCommand {
  const { batch, epochs, steps, seed, device, exact, group, mpi, progress } = flags;
  if (mpi !== undefined && group !== "mpi") {
    throw startError(`--mpi must come with --group mpi: the group is ${group} (see --help)`);
  }
  if (exact && device === "webgpu") {
    throw startError(
      "--exact must come with --device wasm or reference: the device is webgpu, whose atomic " +
        "integers are too narrow to add without rounding (see --help)",
    );
  }
  const ranks = group === "mpi" ? started() : undefined;
  if (ranks !== undefined && ranks !== (flags.replicas ?? ranks)) {
    throw startError(
      `--replicas must be left out, or be what mpirun has started, ${ranks}: ` +
        `current value is ${flags.replicas} (see --help)`,
    );
  }
  const replicas = ranks ?? flags.replicas ?? REPLICAS;
  const size = replicas * batch;
  if (size < SMALLEST_BATCH || size > TRAINING_IMAGES) {
    throw startError(
      `replicas times batch must be from ${SMALLEST_BATCH} to ${TRAINING_IMAGES} images: ` +
        `current value is ${replicas} x ${batch} (see --help)`,
    );
  }
  const options = { replicas, batch, epochs, stopAfter: steps ?? Infinity, seed };
  return Object.freeze({ options, device, exact, group, mpi, progress });
}
