/** Stops processes and lets them go on, as Ctrl-Z and `fg`, a paused container or a debugger do. */

import type { MpiFamily } from "../../lib/groups/mpi.ts";
import { launch, withFolder } from "../mpi_kit.ts";
import type { Count } from "./collect.ts";

const PROGRAM = new URL("./program.ts", import.meta.url).href;
const PERMISSIONS = ["--allow-ffi", "--allow-env", "--allow-read", "--allow-write", "--allow-sys"];
/** How long a stop takes, in ms: longer than the deadline and all that may be excused. */
const STOP_MS = 1500;
/** How long processes run between stops at most, in ms. */
const RUN_MS = 250;
/** How long processes may take to start and to end, in ms. */
const START_MS = 20_000;

/** What came of a program that was stopped. */
export interface Stopped extends Count {
  /** How often it was. */
  readonly stops: number;
  /** How it failed; empty where it did not. */
  readonly failure: string;
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/**
 * Runs an engine and stops its processes.
 *
 * @param engine one of the program's, or a family of MPI
 * @param times how often to stop
 * @param isMpi whether the engine is a family of MPI, and its ranks are processes
 * @returns what came of it
 */
export function stopOften(engine: string, times: number, isMpi: boolean): Promise<Stopped> {
  return withFolder(async (folder) => {
    const ranks = isMpi ? 2 : 1;
    // Far longer than it takes, so that the last stop has something to stop; then it is told to end.
    const ms = String(times * (STOP_MS + RUN_MS) + 1000);
    const script = [PROGRAM, isMpi ? "MPI" : engine, ms, folder];
    const seconds = Number(ms) / 1000 + START_MS / 500;
    const running = isMpi
      ? launch(engine as MpiFamily, ranks, script, { permissions: PERMISSIONS, folder, seconds })
      : run(script, seconds);
    const stops = await stopAll(folder, ranks, times, running);
    const { code, stderr } = await running;
    const counts = readAll<Count>(folder, "count", ranks);
    const sum = (name: keyof Count) => counts.reduce((sum, count) => sum + count[name], 0);
    const failure = code === 0 && counts.length === ranks ? "" : `exit code ${code}: ${stderr}`;
    return { results: sum("results"), wrong: sum("wrong"), stops, failure };
  });
}

async function run(script: readonly string[], seconds: number) {
  const config = new URL("../../deno.json", import.meta.url).pathname;
  const args = ["run", "--no-prompt", "--no-check", "--config", config, ...PERMISSIONS, ...script];
  const signal = AbortSignal.timeout(1000 * seconds);
  const { code, stderr } = await new Deno.Command(Deno.execPath(), { args, signal }).output();
  return { code, stderr: new TextDecoder().decode(stderr) };
}

/** Stops all ranks at once, again and again; gives up once they have ended. */
async function stopAll(
  folder: string,
  ranks: number,
  times: number,
  running: Promise<unknown>,
): Promise<number> {
  let over = false;
  running.finally(() => over = true);
  const limit = performance.now() + START_MS;
  while (readAll(folder, "pid", ranks).length < ranks) {
    if (over || performance.now() > limit) return 0;
    await pause(10);
  }
  const pids = readAll<number>(folder, "pid", ranks);
  for (let stops = 0; stops < times; stops++) {
    // At any moment of what they do.
    await pause(20 + (RUN_MS - 20) * Math.random());
    if (over) return stops;
    for (const pid of pids) signal(pid, "SIGSTOP");
    await pause(STOP_MS);
    for (const pid of pids) signal(pid, "SIGCONT");
  }
  return times;
}

function signal(pid: number, name: Deno.Signal): void {
  try {
    Deno.kill(pid, name);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error; // It has ended meanwhile.
  }
}

function readAll<T>(folder: string, name: string, ranks: number): T[] {
  return Array.from({ length: ranks }, (_, rank) => `${folder}/${name}.${rank}`).flatMap((path) => {
    try {
      return [JSON.parse(Deno.readTextFileSync(path)) as T];
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  });
}
