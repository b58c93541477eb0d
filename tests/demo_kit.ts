/** The demo as its tests see it: its images, and the whole program in a folder of its own. */

import { fileURLToPath } from "node:url";
import { type CompareOptions, type Plan, planRuns } from "../examples/compare.ts";
import { readDigits } from "../examples/digits.ts";

const root = new URL("../", import.meta.url);

/** The demo's images. */
export const digits = await readDigits(
  await Deno.readFile(new URL("examples/digits.bin.gz", root)),
);

/** Plans the demo's runs, which are examined after few steps, if any: an exam takes as long as several steps. */
export function planWith(exams: readonly number[], options: CompareOptions): Plan {
  const plan = planRuns(digits.training.count, options);
  const runs = Object.entries(plan.runs).map(([name, run]) => [
    name,
    { ...run, task: run.task && { ...run.task, exams: new Set(exams) } },
  ]);
  return { ...plan, runs: Object.fromEntries(runs) };
}

/** What the demo needs where all replicas are tasks of one thread. */
export const NARROW = [`--allow-read=${fromRoot("examples")}`, "--allow-write=out"];

/** Variables that leave only a backend that this system does not have. */
export const NO_ADAPTER = { DENO_WEBGPU_BACKEND: Deno.build.os === "darwin" ? "vulkan" : "metal" };

/** The flags of the demo's task, with the paths that it reads as they are from elsewhere. */
export async function taskFlags(): Promise<readonly string[]> {
  const { tasks } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
  const flags: readonly string[] = tasks.demo.command.split(" ").filter((word: string) =>
    word.startsWith("--")
  );
  const READ = "--allow-read=";
  return flags.map((flag) =>
    flag.startsWith(READ) ? READ + flag.slice(READ.length).split(",").map(fromRoot).join(",") : flag
  );
}

/** What came of the program. */
export interface Shown {
  readonly code: number;
  readonly stdout: string;
  /** In lines. */
  readonly stderr: readonly string[];
}

/**
 * Runs the demo.
 *
 * @param flags its own
 * @param options Deno's flags, {@linkcode NARROW} by default; variables; what to do meanwhile
 * @returns what came of it
 */
export async function demo(
  flags: readonly string[],
  { permissions = NARROW, env = {}, meanwhile }: {
    readonly permissions?: readonly string[];
    readonly env?: Readonly<Record<string, string>>;
    readonly meanwhile?: (child: Deno.ChildProcess) => Promise<void>;
  } = {},
): Promise<Shown> {
  const cwd = await Deno.makeTempDir({ prefix: "syncbn_demo_" });
  try {
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "--no-prompt", `--config=${fromRoot("deno.json")}`, ...permissions],
        ...[fromRoot("examples/demo.ts"), ...flags],
      ],
      cwd,
      env: { NO_COLOR: "1", ...onLoopback(cwd), ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const [{ code, stdout, stderr }] = await Promise.all([child.output(), meanwhile?.(child)]);
    const text = new TextDecoder();
    return {
      code,
      stdout: text.decode(stdout),
      stderr: text.decode(stderr).trim().split("\n"),
    };
  } finally {
    await Deno.remove(cwd, { recursive: true });
  }
}

/** The path of a part of the repository. */
export function fromRoot(path: string): string {
  return fileURLToPath(new URL(path, root));
}

/** What keeps MPI's traffic on this machine and its files in a folder. */
function onLoopback(folder: string): Record<string, string> {
  return {
    OMPI_MCA_oob_tcp_if_include: "lo",
    OMPI_MCA_btl_tcp_if_include: "lo",
    OMPI_MCA_orte_tmpdir_base: folder,
    OMPI_MCA_btl_vader_backing_directory: folder,
    HYDRA_IFACE: "lo",
    UCX_TLS: "self,sm",
  };
}
