/** The MPI libraries of this machine, as the suites see them: their launchers, and kits of groups. */

import type { MpiFamily } from "../lib/groups/mpi.ts";
import { demanded } from "./demanded.ts";
import type { Hosts } from "./hosts.ts";
import type { GroupKit } from "./kit.ts";
import { createWorlds, type Worlds } from "./mpi/worlds.ts";

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

/** How long a launcher of one program may take, in seconds. */
const SECONDS = 40;
/** And one of ranks that do all that a file of tests has for them. */
const WORLD_SECONDS = 580;

/** A kit of groups over MPI. */
export interface MpiKit extends GroupKit, Worlds {
  readonly run: Worlds["run"];
}

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
 * A kit of a family, and what ends the ranks that it has started: its last test.
 *
 * @param family whose launcher and library
 * @param hosts two hosts to spread the ranks over
 * @returns the kit; 8 ranks at most, 2 on each host
 */
export function mpiKit(family: MpiFamily, hosts?: Hosts): MpiKit {
  const worlds = createWorlds(
    (worldSize, script, folder) =>
      launch(family, worldSize, script, { folder, hosts, seconds: WORLD_SECONDS }),
    hosts !== undefined,
  );
  return {
    name: hosts ? `${family} on two hosts` : family,
    // The launcher of a world runs from the test that first needs it to the last.
    register: (name, fn) => Deno.test({ name, fn, sanitizeOps: false, sanitizeResources: false }),
    foldsInOrder: false,
    blocks: true,
    costlyStart: hosts ? 4 : 8,
    run: worlds.run,
    close: worlds.close,
  };
}
