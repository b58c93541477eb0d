/**
 * Runs a task on every rank of each kind of group, and programs of MPI.
 *
 * Nothing listens outside this machine: Open MPI's sockets are kept on the loopback interface, MPICH's too, and the
 * numbers travel through shared memory. Each program has a time limit, at which its launcher is told by its process id to
 * stop, which ends its ranks.
 */

import { type SpawnOptions, spawnWorkers } from "../lib/groups/workers.ts";
import { runRanks } from "../mod.ts";
import type { WorkerTask } from "./worker_rank.ts";

/** What every rank does: an export of a module that takes a group and a parameter, both structured clones. */
export interface Task {
  readonly module: string;
  readonly name: string;
}

/** Runs a task and returns what rank 0 made; rejects with the reason where it cannot. */
export type Runner = <P, R>(ranks: number, task: Task, parameter: P) => Promise<R>;

/** The two MPIs; names as their launchers and compilers have them. */
export type Family = "openmpi" | "mpich";
export const FAMILIES = { openmpi: "Open MPI", mpich: "MPICH" } as const;

const SECONDS = 300;
/** Seconds between asking a program to stop and killing it. */
const GRACE = 2;

export const inThread: Runner = async <P, R>(
  ranks: number,
  { module, name }: Task,
  parameter: P,
) => {
  const { [name]: body } = await import(module);
  const [result] = await runRanks<R>(ranks, (group) => body(group, parameter));
  return result;
};

export function workers(options: SpawnOptions<WorkerTask> = {}): Runner {
  return async <P, R>(ranks: number, { module, name }: Task, parameter: P) => {
    const script = new URL("worker_rank.ts", import.meta.url);
    const start = () => new Worker(script, { type: "module", name: module });
    const [result] = await spawnWorkers<WorkerTask, R>(start, ranks, {
      ...{ timeoutMs: 1e3 * SECONDS, parameter: { name, parameter } },
      ...options,
    });
    return result;
  };
}

export function mpi(family: Family, checked = true): Runner {
  const script = pathOf(import.meta.url, "mpi_rank.ts");
  return async (ranks, task, parameter) => {
    assertCores(family, ranks);
    // With as many ranks as cores V8's own threads would take the other rank's.
    const flags = ["--no-check", "--v8-flags=--single-threaded"];
    const permissions = ["--allow-ffi", "--allow-env", "--allow-read"];
    const order = JSON.stringify({ task, parameter, checked, ranks });
    const deno = [Deno.execPath(), "run", ...flags, ...permissions, script, order];
    const said = await run(launch(family, ranks, deno, { NO_COLOR: "1" }), SECONDS);
    return JSON.parse(said.trim().split("\n").at(-1) ?? "");
  };
}

/** Every kind of group that training steps are timed on. */
export const GROUPS: Readonly<Record<string, Runner>> = {
  workers: workers(),
  "Open MPI": mpi("openmpi"),
  MPICH: mpi("mpich"),
};

/** Fails where an MPI would stand still. */
export function assertCores(family: Family, ranks: number): void {
  const cores = navigator.hardwareConcurrency;
  if (family === "openmpi" || ranks <= cores) return;
  throw new Error(`MPICH's ranks never yield: ${ranks} need as many cores, there are ${cores}`);
}

/** Makes the command that launches ranks of a program on this machine and keeps them on it. */
export function launch(
  family: Family,
  ranks: number,
  command: readonly string[],
  env: Readonly<Record<string, string>> = {},
): readonly string[] {
  const number = ["-n", String(ranks)];
  if (family === "mpich") {
    const variables = Object.entries({ UCX_TLS: "self,sm", ...env });
    const given = variables.flatMap(([name, value]) => ["-genv", name, value]);
    return ["mpirun.mpich", "-iface", "lo", ...given, ...number, ...command];
  }
  const variables = Object.entries(env).flatMap(([name, value]) => ["-x", `${name}=${value}`]);
  return [
    ...["mpirun.openmpi", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"],
    ...["--mca", "oob_tcp_if_include", "lo", "--mca", "btl_tcp_if_include", "lo"],
    ...[...variables, ...number, ...command],
  ];
}

/** Runs a program and returns what it printed; at its limit it is asked to stop, then killed. */
export async function run(
  [command, ...args]: readonly string[],
  seconds: number,
): Promise<string> {
  // Launchers signal whole process groups: theirs must not be ours.
  const options = { stdin: "null", stdout: "piped", stderr: "piped", detached: true } as const;
  const child = spawn(command, { args, ...options });
  let late = false;
  const stop = (signal: Deno.Signal) => () => {
    late = true;
    try {
      child.kill(signal);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // It has ended, and only its output is under way.
    }
  };
  const timers = [
    setTimeout(stop("SIGTERM"), 1e3 * seconds),
    setTimeout(stop("SIGKILL"), 1e3 * (seconds + GRACE)),
  ];
  try {
    const { code, stdout, stderr } = await child.output();
    if (late) throw new Error(`${command} was stopped after ${seconds} s`);
    if (code !== 0) throw new Error(whyFailed(code, new TextDecoder().decode(stderr)));
    return new TextDecoder().decode(stdout);
  } finally {
    timers.forEach(clearTimeout);
  }
}

export function spawn(program: string, options: Deno.CommandOptions): Deno.ChildProcess {
  try {
    return new Deno.Command(program, options).spawn();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new Error(`there is no ${nameOf(program)}`);
  }
}

/** What goes into tables has no path of a machine in it. */
export function nameOf(program: string): string {
  return program.split("/").at(-1)!;
}

/** The first line that reads like an error, else the last one. */
function whyFailed(code: number, stderr: string): string {
  const lines = stderr.split("\n").map((line) => line.trim()).filter((line) => /\w/.test(line));
  const said = lines.find((line) => /error|cannot/i.test(line)) ?? lines.at(-1);
  return `exit code ${code}, ${said ?? "it said nothing"}`;
}

export function pathOf(module: string, name: string): string {
  return decodeURIComponent(new URL(name, module).pathname);
}
