/**
 * How the demo starts itself as several processes, and how it finds that it was started so.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import type { MpiName, RunCommand } from "./flags.ts";
import { startError } from "./start_error.ts";

/** An `mpirun` of this machine. */
export interface Mpirun {
  readonly command: string;
  readonly mpi: MpiName;
}

/** By their names where both may be installed, and as `mpirun`, which may be either. */
const COMMANDS = ["mpirun.openmpi", "mpirun", "mpirun.mpich"] as const;
const PACKAGES: Readonly<Record<MpiName, string>> = {
  openmpi: "openmpi-bin libopenmpi3",
  mpich: "mpich libmpich12",
};
/** What launchers tell their processes, and `mpiGroup` looks at. */
const VARIABLES = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS"] as const;
/** Signals that end the demo, and the exit codes that shells give them: not 1, which says that the law is broken. */
const SIGNALS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;
/** How long the launcher has to end its processes. */
const ENDING_MS = 10_000;

/**
 * Finds out whether this process is one of several that a launcher has started.
 *
 * @returns their number, or undefined
 * @throws a start error where the environment may not be read
 */
export function startedRanks(): number | undefined {
  try {
    const size = Deno.env.get(VARIABLES[0]) ?? Deno.env.get(VARIABLES[1]);
    return size === undefined ? undefined : Number(size);
  } catch (cause) {
    throw startError(
      `--group mpi must be allowed to read what mpirun tells its processes: ` +
        `run deno with --allow-env=${VARIABLES.join(",")}`,
      { cause },
    );
  }
}

/**
 * Starts the demo once per replica, and waits for the launcher's end. Whoever ends this process by a signal ends all.
 *
 * @param command what to run
 * @param args the command line that said so
 * @returns the launcher's exit code, which is that of the replicas, or a signal's
 * @throws (rejects with) a start error where no launcher is there, or this one will not do
 */
export async function startRanks(
  { options: { replicas }, mpi: wanted, progress }: RunCommand,
  args: readonly string[],
): Promise<number> {
  const mpirun = await findMpirun(wanted);
  const cores = navigator.hardwareConcurrency;
  if (mpirun.mpi === "mpich" && replicas > cores) {
    throw startError(
      `--replicas must be at most the number of cores, ${cores}, under MPICH, whose processes never make way: ` +
        `current value is ${replicas}; take --mpi openmpi`,
    );
  }
  // Open MPI's processes see a terminal where there is none.
  const shown = progress === "auto" ? (Deno.stdout.isTerminal() ? "bar" : "lines") : progress;
  const child = new Deno.Command(mpirun.command, {
    args: [...mpirunFlags(mpirun.mpi, replicas), ...denoFlags(), ...args, "--progress", shown],
    stdin: "null",
    stdout: "inherit",
    stderr: "inherit",
    // So that a terminal's Ctrl-C comes to it once, from here: launchers take a second for impatience.
    detached: true,
  }).spawn();
  return await followed(child);
}

/** Waits; a signal to this process ends the launcher, which ends its processes. */
async function followed(child: Deno.ChildProcess): Promise<number> {
  let stopped: number | undefined;
  let patience: ReturnType<typeof setTimeout> | undefined;
  const stop = (code: number): void => {
    if (stopped !== undefined) return;
    stopped = code;
    patience = setTimeout(() => child.kill("SIGKILL"), ENDING_MS);
    child.kill("SIGTERM");
  };
  const listeners = Object.entries(SIGNALS).map(([signal, code]) =>
    [signal as keyof typeof SIGNALS, () => stop(code)] as const
  );
  for (const [signal, listener] of listeners) Deno.addSignalListener(signal, listener);
  try {
    const { code } = await child.status;
    return stopped ?? code;
  } finally {
    clearTimeout(patience);
    for (const [signal, listener] of listeners) Deno.removeSignalListener(signal, listener);
  }
}

/**
 * Finds a launcher.
 *
 * @param wanted whose, or undefined for the first there is
 * @returns the launcher
 * @throws (rejects with) a start error where there is none, or it may not be run
 */
export async function findMpirun(wanted: MpiName | undefined): Promise<Mpirun> {
  for (const command of COMMANDS) {
    const mpi = await familyOf(command);
    if (mpi && (!wanted || mpi === wanted)) return { command, mpi };
  }
  throw startError(
    `--group mpi must find ${wanted ? `${wanted}'s mpirun` : "mpirun"}: there is none ` +
      `(on Debian: apt-get install ${PACKAGES[wanted ?? "openmpi"]})`,
  );
}

async function familyOf(command: string): Promise<MpiName | undefined> {
  try {
    const { stdout, success } = await new Deno.Command(command, { args: ["--version"] }).output();
    if (!success) return;
    return /open ?(mpi|rte)/i.test(new TextDecoder().decode(stdout)) ? "openmpi" : "mpich";
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return;
    if (!(cause instanceof Deno.errors.NotCapable)) throw cause;
    throw startError(`--group mpi must be allowed to run ${command}: ${cause.message}`, { cause });
  }
}

function mpirunFlags(mpi: MpiName, replicas: number): readonly string[] {
  const count = ["-n", `${replicas}`];
  const isLinux = Deno.build.os === "linux";
  // All on this machine: nothing needs to listen to others. Elsewhere the interface has other names.
  if (mpi === "mpich") return [...(isLinux ? ["-iface", "lo"] : []), ...count];
  const loopback = ["oob_tcp_if_include", "btl_tcp_if_include"]
    .flatMap((name) => isLinux ? ["--mca", name, "lo"] : []);
  // Any number of processes, on whichever cores are idle, and in containers too, where everybody is root.
  return [
    ...["--oversubscribe", "--bind-to", "none", "--allow-run-as-root"],
    ...loopback,
    ...count,
  ];
}

/** This program once more, with what a rank needs. */
function denoFlags(): readonly string[] {
  const pathOf = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
  return [
    ...[Deno.execPath(), "run", "--quiet", "--no-prompt"],
    ...["--config", pathOf("../deno.json"), `--allow-read=${pathOf(".")}`, "--allow-write=out"],
    ...["--allow-ffi", `--allow-env=${VARIABLES.join(",")}`, pathOf("./demo.ts")],
  ];
}
