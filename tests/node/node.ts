/** Node for tests: which there are, and how the suites are bundled for it and run. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import type { Outcome, Plan } from "./plan.ts";

/** The Nodes that the library is tried with, and Dawn for them; npm has their programs. */
const RELEASES = { node20: "20.20.2", node22: "22.23.3", node24: "24.21.0" } as const;

/** What a program printed. */
export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. */
export async function run(
  command: string,
  args: readonly string[],
  cwd: string,
  env: Record<string, string> = {},
): Promise<Ran> {
  const child = new Deno.Command(command, {
    ...{ args: [...args], cwd, stdin: "null" },
    env: { ...env, NO_COLOR: "1" },
  });
  const { code, stdout, stderr } = await child.output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout).trim(), stderr: text.decode(stderr) };
}

/** Runs a program, and fails where it does. */
export async function succeed(...of: Parameters<typeof run>): Promise<string> {
  const { code, stdout, stderr } = await run(...of);
  assert.equal(code, 0, `${of[0]} ${of[1].join(" ")}: ${stderr}\n${stdout}`);
  return stdout;
}

/** Gives a body a folder that is gone afterwards. */
export async function inFolder<T>(body: (folder: string) => Promise<T>): Promise<T> {
  const folder = await Deno.makeTempDir({ prefix: "syncbn_node_" });
  try {
    return await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Whether the machine has a program. */
export async function has(program: string): Promise<boolean> {
  try {
    return (await run(program, ["--version"], ".")).code === 0;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Installs packages of npm into a folder, as its users do: under a name of one's own, each. */
export async function install(
  folder: string,
  packages: Readonly<Record<string, string>>,
): Promise<void> {
  await writeManifest(folder, packages);
  const quiet = ["--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts"];
  await succeed("npm", ["install", "--silent", ...quiet], folder);
}

/**
 * Puts packages of npm into a folder as {@linkcode install} does, by links into Deno's own store of them: three Nodes are 300 MB,
 * which npm would unpack anew for each folder.
 */
export async function link(
  folder: string,
  packages: Readonly<Record<string, string>>,
): Promise<void> {
  await writeManifest(folder, packages);
  await succeed(Deno.execPath(), ["install", "--quiet", "--no-lock"], folder);
}

async function writeManifest(
  folder: string,
  packages: Readonly<Record<string, string>>,
): Promise<void> {
  const manifest = { private: true, type: "module", dependencies: packages };
  await Deno.writeTextFile(`${folder}/package.json`, JSON.stringify(manifest));
}

/** Packages of the Nodes of this machine's kind; the program of each is `bin/node` in it. */
export function nodePackages(): Record<string, string> {
  const arch = Deno.build.arch === "x86_64" ? "x64" : "arm64";
  const entries = Object.entries(RELEASES).map((
    [name, version],
  ) => [name, `npm:node-${Deno.build.os}-${arch}@${version}`]);
  return Object.fromEntries(entries);
}

/** Bundles programs for Node, each by itself, so that a worker loads no more than it needs. */
export async function bundleForNode(folder: string, programs: readonly URL[]): Promise<void> {
  const entries = programs.map((program) => fileURLToPath(program));
  const args = ["bundle", "--quiet", "--outdir", folder, ...entries];
  await succeed(Deno.execPath(), args, fileURLToPath(new URL("../../", import.meta.url)));
  await Deno.writeTextFile(`${folder}/package.json`, `{ "type": "module" }`);
}

/** Bundles the suites for Node. */
export async function bundleSuites(folder: string): Promise<void> {
  await bundleForNode(
    folder,
    ["program.ts", "rank.ts"].map((name) => new URL(name, import.meta.url)),
  );
}

/** Runs the suites in Node; what came of each is a step. */
export async function runSuites(
  t: Deno.TestContext,
  node: string,
  folder: string,
  plan: Plan,
  env: Record<string, string> = {},
): Promise<void> {
  const stdout = await succeed(node, ["program.js", JSON.stringify(plan)], folder, env);
  const outcomes = stdout.split("\n").filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Outcome);
  assert(outcomes.length > 0);
  for (const { name, error } of outcomes) {
    await t.step(name, () => {
      if (error !== null) throw new Error(error);
    });
  }
}
