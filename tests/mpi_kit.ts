/** The MPI libraries of this machine, as the suites see them: every run is one of the launcher. */

import { deserialize, serialize } from "node:v8";
import { CollectiveError } from "../mod.ts";
import type { MpiFamily, MpiOptions } from "../lib/groups/mpi.ts";
import { bundled } from "./bundled.ts";
import { demanded } from "./demanded.ts";
import type { Hosts } from "./hosts.ts";
import type { GroupKit, RankTask } from "./kit.ts";
import { type Order, programOf, type Report } from "./mpi_rank.ts";

/** A family's launcher, by its full name: `mpirun` is whatever was installed last. */
interface Launching {
  readonly command: string;
  /** What allows for more ranks than cores, and puts all files into the folder. */
  readonly args: (folder: string) => readonly string[];
  /** What keeps all traffic on this machine. */
  readonly here: Settings;
  /** What puts ranks on two hosts in turns, as many on each, and keeps their traffic on the cable between them. */
  readonly across: (hosts: Hosts, perHost: number) => Settings;
}

interface Settings {
  readonly args: readonly string[];
  readonly env: Record<string, string>;
}

const spread = ({ addresses }: Hosts, perHost: number): string =>
  addresses.map((address) => `${address}:${perHost}`).join(",");

const LAUNCHING: Record<MpiFamily, Launching> = {
  "Open MPI": {
    command: "mpirun.openmpi",
    args: (folder) => [
      "--allow-run-as-root",
      "--oversubscribe",
      ...["--bind-to", "none"],
      ...["--mca", "orte_tmpdir_base", folder],
      ...["--mca", "btl_vader_backing_directory", folder],
    ],
    here: {
      args: [
        ...["--mca", "oob_tcp_if_include", "lo"],
        ...["--mca", "btl_tcp_if_include", "lo"],
      ],
      env: {},
    },
    across: (hosts, perHost) => ({
      args: [
        ...["--mca", "plm_rsh_agent", hosts.agent],
        ...["--mca", "oob_tcp_if_include", hosts.network],
        ...["--mca", "btl", "self,vader,tcp"],
        ...["--mca", "btl_tcp_if_include", hosts.network],
        ...["--host", spread(hosts, perHost), "--map-by", "node"],
      ],
      env: {},
    }),
  },
  "MPICH": {
    command: "mpirun.mpich",
    args: () => [],
    here: { args: ["-iface", "lo"], env: { UCX_TLS: "self,sm" } },
    // One slot each: more ranks go around once more.
    across: (hosts) => ({
      args: [
        ...["-launcher", "ssh", "-launcher-exec", hosts.agent],
        ...["-iface", hosts.link, "-hosts", spread(hosts, 1)],
      ],
      // Not through shared memory, which reaches farther here than between machines.
      env: { UCX_TLS: "self,tcp", UCX_NET_DEVICES: hosts.link },
    }),
  },
};

/** What a launcher came to. */
export interface Launched {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The permissions that a rank of these tests has. */
const PERMISSIONS = ["--allow-ffi", "--allow-env", "--allow-read", "--allow-write"];

/** How long a launcher may take, in seconds, and its ranks a little less. */
const SECONDS = 40;

/** Whether this machine has the family's launcher; a run that promises it must. */
export async function hasMpi(family: MpiFamily): Promise<boolean> {
  if (demanded(family === "MPICH" ? "mpich" : "openmpi")) return true;
  try {
    const { command } = LAUNCHING[family];
    const { success } = await new Deno.Command(command, { args: ["--version"] }).output();
    return success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/**
 * Starts ranks of a program and waits for them, for a limited time.
 *
 * @param family whose launcher
 * @param worldSize how many ranks
 * @param script the program and its arguments
 * @param options the permissions of the ranks; a folder for what MPI leaves behind; seconds until it is ended; two hosts
 * to spread the ranks over
 * @returns the exit code and texts of the launcher
 */
export async function launch(
  family: MpiFamily,
  worldSize: number,
  script: readonly string[],
  { permissions = PERMISSIONS, folder, seconds = SECONDS, hosts }: {
    readonly permissions?: readonly string[];
    readonly folder: string;
    readonly seconds?: number;
    readonly hosts?: Hosts;
  },
): Promise<Launched> {
  const { command, args, here, across } = LAUNCHING[family];
  const where = hosts ? across(hosts, Math.ceil(worldSize / hosts.addresses.length)) : here;
  const program = [Deno.execPath(), ...denoArgs(permissions), ...script];
  const launcher = [command, ...args(folder), ...where.args, "-n", `${worldSize}`, ...program];
  return await finish(hosts ? hosts.onFirst(launcher) : launcher, where.env, seconds);
}

/** Runs a program without a launcher. */
export async function runAlone(script: readonly string[]): Promise<Launched> {
  return await finish([Deno.execPath(), ...denoArgs(PERMISSIONS), ...script], {}, SECONDS);
}

function denoArgs(permissions: readonly string[]): readonly string[] {
  const config = new URL("../deno.json", import.meta.url).pathname;
  return ["run", "--no-prompt", "--no-check", "--config", config, ...permissions];
}

async function finish(
  [command, ...args]: readonly string[],
  env: Record<string, string>,
  seconds: number,
): Promise<Launched> {
  const child = new Deno.Command(command, {
    args,
    env: { ...env, NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    // Launchers signal whole process groups: theirs must not be ours.
    detached: true,
  }).spawn();
  // Both launchers end their ranks when they are asked to end.
  const timers = [[seconds, "SIGTERM"], [seconds + 3, "SIGKILL"]] as const;
  const pending = timers.map(([after, signal]) =>
    setTimeout(() => child.kill(signal), 1000 * after)
  );
  try {
    const { code, stdout, stderr } = await child.output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { code, stdout: text(stdout), stderr: text(stderr) };
  } finally {
    pending.forEach(clearTimeout);
  }
}

/** Gives a body a folder that is gone afterwards. */
export async function withFolder<T>(body: (folder: string) => Promise<T>): Promise<T> {
  const folder = await Deno.makeTempDir({ prefix: "syncbn_mpi_" });
  try {
    return await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/**
 * A kit of a family.
 *
 * @param family whose launcher and library
 * @param fixed options of every group
 * @param hosts two hosts to spread the ranks over
 * @returns the kit; 8 ranks at most, 2 on each host
 */
export function mpiKit(family: MpiFamily, fixed: MpiOptions = {}, hosts?: Hosts): GroupKit {
  return {
    name: hosts ? `${family} on two hosts` : family,
    foldsInOrder: false,
    blocks: true,
    costlyStart: hosts ? 4 : 8,
    run: <P, R>(
      worldSize: number,
      { module, name }: RankTask<P, R>,
      parameter: P,
      options: MpiOptions = {},
    ) =>
      withFolder(async (folder) => {
        const order: Order = {
          name,
          parameter,
          options: { ...fixed, ...options },
          seconds: SECONDS - 2,
        };
        await Deno.writeFile(`${folder}/order`, serialize(order));
        const rank = await bundled(programOf(module));
        const launched = await launch(family, worldSize, [rank, folder], { folder, hosts });
        return resultsOf(await readReports(folder, worldSize), launched) as R[];
      }),
  };
}

async function readReports(
  folder: string,
  worldSize: number,
): Promise<readonly (Report | null)[]> {
  return await Promise.all(
    Array.from({ length: worldSize }, async (_, rank) => {
      try {
        return deserialize(await Deno.readFile(`${folder}/report.${rank}`)) as Report;
      } catch {
        return null;
      }
    }),
  );
}

function resultsOf(reports: readonly (Report | null)[], launched: Launched): unknown[] {
  const failures = reports.flatMap((report) => report && "message" in report ? [report] : []);
  const [first] = failures.sort((a, b) => a.at - b.at);
  if (first) {
    const { name, message, code, ranks } = first;
    throw code && ranks
      ? new CollectiveError(message, code, ranks)
      : Object.assign(new Error(message), { name });
  }
  return reports.map((report, rank) => {
    if (report && "result" in report) return report.result;
    const { code, stderr } = launched;
    throw new Error(`rank ${rank} left no report; the launcher's code is ${code}: ${stderr}`);
  });
}
