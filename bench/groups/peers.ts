/**
 * The peers of the process groups: MPI itself in C, and mpi4py. Compiles and runs `raw_mpi.c` and `raw_mpi4py.py` with
 * each MPI that the machine has.
 *
 * Nothing listens outside this machine: Open MPI's sockets are kept on the loopback interface, MPICH's too, and the
 * numbers travel through shared memory. Each program has a time limit, at which its launcher is told by its process
 * id to stop, which ends its ranks; each rank has an alarm besides.
 *
 * @module
 */

/** The two MPIs; names as their launchers and compilers have them. */
export type Family = "openmpi" | "mpich";

/** How long one all-reduce takes. */
export interface GroupRow {
  /** Whose it is: program, library and kind of call. */
  readonly subject: string;
  /** Number of processes. */
  readonly ranks: number;
  /** Number of float64 that every rank gives and gets. */
  readonly length: number;
  /** Microseconds per call on the slowest rank: median and fastest of the rounds. */
  readonly microseconds: { readonly median: number; readonly fastest: number };
}

/** What was not measured. */
export interface MissingPeer {
  readonly subject: string;
  readonly ranks: number;
  /** The reason. */
  readonly missing: string;
}

/** All peers at once. */
export interface Peers {
  readonly rows: readonly GroupRow[];
  readonly missing: readonly MissingPeer[];
  /** Each MPI that ran, by its own words. */
  readonly libraries: readonly string[];
}

/** What is run. */
export interface PeerOptions {
  /** Numbers of processes. */
  readonly ranks: readonly number[];
  /** Numbers of float64. */
  readonly lengths: readonly number[];
  /** Rounds of which the median counts; 9 by default. */
  readonly rounds?: number;
  /** What a round takes at least, in ms; 20 by default. */
  readonly milliseconds?: number;
  /** Time limit of each program, in seconds; 60 by default. */
  readonly seconds?: number;
  /** The Python that may have mpi4py and numpy; `python3` by default. */
  readonly python?: string;
}

/** The default lengths: the forward wire 2C + 1 of 64, 512, 4096 and 65,536 channels. */
export const LENGTHS = [129, 1025, 8193, 131073] as const;

const FAMILIES = { openmpi: "Open MPI", mpich: "MPICH" } as const;
const CALLS = { allreduce: "blocking", iallreduce: "non-blocking" } as const;
/** As the OSU benchmarks do it, and as the MPI group, which keeps what was given apart from what comes back. */
const BUFFERS = "separate";
/** Seconds between asking a program to stop and killing it. */
const GRACE = 2;

/** What a program said, and how it ended. */
export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

interface Line {
  readonly library: string;
  readonly ranks: number;
  readonly length: number;
  readonly median: number;
  readonly fastest: number;
}

/** A program that is ready to be launched, or why it is not. */
type Program =
  | { readonly command: readonly string[]; readonly env: Readonly<Record<string, string>> }
  | { readonly missing: string };

/**
 * Measures the peers, one after the other.
 *
 * @param options what is run
 * @returns a row per program, kind of call, number of ranks and length; and what is missing, with the reason
 */
export async function measurePeers(options: PeerOptions): Promise<Peers> {
  const folder = await Deno.makeTempDir({ prefix: "syncbn-peers-" });
  try {
    const parts: Peers[] = [];
    for (const family of Object.keys(FAMILIES) as Family[]) {
      const compiled = await compile(family, folder);
      const programs = [["C", compiled], [
        "mpi4py",
        await interpreted(family, compiled, folder, options.python ?? "python3"),
      ]] as const;
      for (const [name, program] of programs) {
        for (const ranks of options.ranks) {
          for (const call of Object.keys(CALLS) as (keyof typeof CALLS)[]) {
            const subject = `${name}, ${FAMILIES[family]}, ${CALLS[call]}`;
            parts.push(await measure({ subject, family, program, ranks, call }, options));
          }
        }
      }
    }
    return {
      rows: parts.flatMap(({ rows }) => rows),
      missing: parts.flatMap(({ missing }) => missing),
      libraries: [...new Set(parts.flatMap(({ libraries }) => libraries))],
    };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/**
 * Makes the command that launches ranks on this machine and keeps them on it.
 *
 * @param family whose launcher
 * @param ranks how many
 * @param command the program and its arguments
 * @param env variables that every rank gets
 * @returns the launcher and its arguments
 */
export function launch(
  family: Family,
  ranks: number,
  command: readonly string[],
  env: Readonly<Record<string, string>> = {},
): readonly [string, ...string[]] {
  const number = ["-n", String(ranks)];
  if (family === "mpich") {
    const variables = Object.entries({ UCX_TLS: "self,sm", ...env });
    const given = variables.flatMap(([name, value]) => ["-genv", name, value]);
    return ["mpirun.mpich", "-iface", "lo", ...given, ...number, ...command];
  }
  const variables = Object.entries(env).flatMap(([name, value]) => ["-x", `${name}=${value}`]);
  return [
    "mpirun.openmpi",
    "--allow-run-as-root",
    "--oversubscribe",
    ...["--bind-to", "none"],
    ...["--mca", "oob_tcp_if_include", "lo"],
    ...["--mca", "btl_tcp_if_include", "lo"],
    ...variables,
    ...number,
    ...command,
  ];
}

interface Measurement {
  readonly subject: string;
  readonly family: Family;
  readonly program: Program;
  readonly ranks: number;
  readonly call: keyof typeof CALLS;
}

async function measure(
  { subject, family, program, ranks, call }: Measurement,
  { lengths, rounds = 9, milliseconds = 20, seconds = 60 }: PeerOptions,
): Promise<Peers> {
  const lack = (missing: string): Peers => ({
    rows: [],
    missing: [{ subject, ranks, missing }],
    libraries: [],
  });
  if ("missing" in program) return lack(program.missing);
  const cores = navigator.hardwareConcurrency;
  if (family === "mpich" && ranks > cores) {
    return lack(`MPICH's ranks never yield: ${ranks} need as many cores, there are ${cores}`);
  }
  const limits = [rounds, milliseconds, seconds + GRACE].map(String);
  const command = [...program.command, call, BUFFERS, ...limits, ...lengths.map(String)];
  const finished = await run(launch(family, ranks, command, program.env), seconds);
  if ("missing" in finished) return lack(finished.missing);
  if (finished.code !== 0) return lack(whyFailed(finished));
  const lines = finished.stdout.trim().split("\n").map((line): Line => JSON.parse(line));
  const worlds = new Set(lines.map((line) => line.ranks));
  if (worlds.size !== 1 || !worlds.has(ranks)) {
    return lack(`the library is not the launcher's: each rank is in a world of ${[...worlds]}`);
  }
  return {
    rows: lines.map(({ length, median, fastest }) => ({
      subject,
      ranks,
      length,
      microseconds: { median, fastest },
    })),
    missing: [],
    libraries: [lines[0].library.split(",")[0].replace(/ Version:\s*/, " v")],
  };
}

async function compile(family: Family, folder: string): Promise<Program> {
  const compiler = `mpicc.${family}`;
  const program = `${folder}/raw_${family}`;
  const source = pathOf("raw_mpi.c");
  const finished = await run([compiler, "-O3", "-o", program, source], 60);
  if ("missing" in finished) return finished;
  if (finished.code !== 0) return { missing: `${compiler} failed: ${whyFailed(finished)}` };
  return { command: [program], env: {} };
}

/** The wheels of mpi4py choose the MPI at run time; Debian's package is built for Open MPI. */
async function interpreted(
  family: Family,
  compiled: Program,
  folder: string,
  python: string,
): Promise<Program> {
  const found = await run([python, "-c", "import mpi4py, numpy, sys; print(sys.executable)"], 60);
  if ("missing" in found) return found;
  if (found.code !== 0) return { missing: `${python} has no mpi4py and numpy` };
  const executable = found.stdout.trim(); // A launcher may look a bare name up in another order.
  const program = {
    command: [executable, pathOf("raw_mpi4py.py")],
    env: { MPI4PY_MPIABI: family },
  };
  if (family === "openmpi") return program;

  // The wheels look for libmpi.so.12, the name that the MPIs of MPICH's ABI agree on and Debian does not use.
  if ("missing" in compiled) return compiled;
  const linked = await run(["ldd", compiled.command[0]], 10);
  const library = "missing" in linked
    ? null
    : /=> (\S+\/libmpich\.so\.12)/.exec(linked.stdout)?.[1];
  if (!library) return { missing: "libmpich.so.12 is not among what the compiled program uses" };
  const names = `${folder}/names`;
  await Deno.mkdir(names);
  await Deno.symlink(library, `${names}/libmpi.so.12`);
  return { ...program, env: { ...program.env, LD_LIBRARY_PATH: names } };
}

/**
 * Runs a program; at its limit it is asked to stop, then killed.
 *
 * @param command the program and its arguments
 * @param seconds its limit
 * @returns what it said, or why it did not run to its end
 */
export async function run(
  [command, ...args]: readonly string[],
  seconds: number,
): Promise<Finished | { readonly missing: string }> {
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(command, {
      args,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      // Launchers signal whole process groups: theirs must not be ours.
      detached: true,
    }).spawn();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { missing: `there is no ${command}` };
    throw error;
  }
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
    if (late) return { missing: `${command} was stopped after ${seconds} s` };
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { code, stdout: text(stdout), stderr: text(stderr) };
  } finally {
    timers.forEach(clearTimeout);
  }
}

/**
 * Says why a program failed.
 *
 * @param finished what it said
 * @returns the first line that reads like an error, else the last one
 */
export function whyFailed({ code, stderr }: Finished): string {
  const lines = stderr.split("\n").map((line) => line.trim()).filter((line) => /\w/.test(line));
  const said = lines.find((line) => /error|cannot/i.test(line)) ?? lines.at(-1) ??
    "it said nothing";
  return `exit code ${code}, ${said}`;
}

function pathOf(name: string): string {
  return decodeURIComponent(new URL(name, import.meta.url).pathname);
}
