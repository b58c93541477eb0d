/** The peers of the process groups: `raw_mpi.c` and `raw_mpi4py.py`, with each MPI that the machine has. */

import { assertCores, FAMILIES, type Family, launch, pathOf, run } from "../ranks.ts";
import { type Effort, type GroupRow, LENGTHS, type MissingPeer } from "./measured.ts";

const CALLS = { allreduce: "blocking", iallreduce: "non-blocking" } as const;
/** Time limit of each program, in seconds; its ranks have an alarm a little later. */
const SECONDS = 60;

export interface Peers {
  readonly rows: readonly GroupRow[];
  readonly missing: readonly MissingPeer[];
  readonly libraries: readonly string[];
}

interface Program {
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

export async function measurePeers(
  worlds: readonly number[],
  effort: Effort,
  python: string,
): Promise<Peers> {
  const folder = await Deno.makeTempDir({ prefix: "syncbn-peers-" });
  const rows: GroupRow[] = [];
  const missing: MissingPeer[] = [];
  const libraries = new Set<string>();
  try {
    for (const family of Object.keys(FAMILIES) as Family[]) {
      const compiled = compile(family, folder);
      const programs = {
        C: compiled,
        mpi4py: compiled.then((program) => interpreted(family, program, folder, python)),
      };
      await Promise.allSettled(Object.values(programs)); // What is missing is said for each row.
      for (const [name, program] of Object.entries(programs)) {
        for (const ranks of worlds) {
          for (const call of Object.keys(CALLS) as (keyof typeof CALLS)[]) {
            const subject = `${name}, ${FAMILIES[family]}, ${CALLS[call]}`;
            try {
              assertCores(family, ranks);
              const lines = await measure(family, await program, ranks, call, effort);
              libraries.add(lines[0].library.split(",")[0].replace(/ Version:\s*/, " v"));
              rows.push(...lines.map(({ length, median, fastest }) => ({
                ...{ subject, ranks, length, microseconds: { median, fastest } },
              })));
            } catch (error) {
              missing.push({ subject, ranks, missing: (error as Error).message });
            }
          }
        }
      }
    }
    return { rows, missing, libraries: [...libraries] };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** What both programs print. */
type Line = Pick<GroupRow, "ranks" | "length"> & GroupRow["microseconds"] & { library: string };

async function measure(
  family: Family,
  { command, env }: Program,
  ranks: number,
  call: string,
  { rounds, milliseconds }: Effort,
): Promise<readonly Line[]> {
  const limits = [rounds, milliseconds, SECONDS + 2, ...LENGTHS].map(String);
  const said = await run(launch(family, ranks, [...command, call, ...limits], env), SECONDS);
  const lines = said.trim().split("\n").map((line): Line => JSON.parse(line));
  const other = lines.find((line) => line.ranks !== ranks);
  if (!other) return lines;
  throw new Error(`the library is not the launcher's: each rank is in a world of ${other.ranks}`);
}

async function compile(family: Family, folder: string): Promise<Program> {
  const program = `${folder}/raw_${family}`;
  const source = pathOf(import.meta.url, "raw_mpi.c");
  await run([`mpicc.${family}`, "-O3", "-o", program, source], SECONDS);
  return { command: [program], env: {} };
}

/** The wheels of mpi4py choose the MPI at run time; Debian's package is built for Open MPI. */
async function interpreted(
  family: Family,
  compiled: Program,
  folder: string,
  python: string,
): Promise<Program> {
  const asked = [python, "-c", "import mpi4py, numpy, sys; print(sys.executable)"];
  const executable = await run(asked, SECONDS).catch((error: Error) => {
    if (error.message.startsWith("there is no")) throw error;
    throw new Error(`${python} has no mpi4py and numpy`);
  });
  // A launcher may look a bare name up in another order.
  const command = [executable.trim(), pathOf(import.meta.url, "raw_mpi4py.py")];
  const env = { MPI4PY_MPIABI: family };
  if (family === "openmpi") return { command, env };

  // The wheels look for libmpi.so.12, the name that the MPIs of MPICH's ABI agree on and Debian does not use.
  const linked = await run(["ldd", compiled.command[0]], SECONDS);
  const library = /=> (\S+\/libmpich\.so\.12)/.exec(linked)?.[1];
  if (!library) throw new Error("libmpich.so.12 is not among what the compiled program uses");
  const names = `${folder}/names`;
  await Deno.mkdir(names);
  await Deno.symlink(library, `${names}/libmpi.so.12`);
  return { command, env: { ...env, LD_LIBRARY_PATH: names } };
}
