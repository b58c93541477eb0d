/**
 * `deno task pack`: the npm package, a tarball of JavaScript and types that needs no Deno. `deno pack` makes it of deno.json,
 * entry points included; here is what that leaves out.
 */

import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { type Program, text } from "../examples/command_line.ts";
import { runProgram } from "../examples/run_program.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));

/** What npm, bundlers and Node are told beside what `deno pack` says. */
const MANIFEST = {
  description:
    "Synchronized batch normalization over replicas: Wasm SIMD, WebGPU, workers; exact, without dependencies",
  // Unused modules may go.
  sideEffects: false,
  // The first with process.getBuiltinModule, by which threads are found.
  engines: { node: ">=20.16" },
  // TypeScript 5 has no WebGPU of its own.
  peerDependencies: { "@webgpu/types": "*" },
  peerDependenciesMeta: { "@webgpu/types": { optional: true } },
};

/** Built-ins that types name, and the `lib` that declares them: so users need not list it. */
const LIBS: readonly (readonly [RegExp, string])[] = [
  [/\b(Async)?Disposable\b|Symbol\.(asyncD|d)ispose/, "esnext.disposable"],
  [/\bFloat16Array\b/, "esnext.float16"],
];

/** What users of the package do not read: how the kernels work and what was tried. */
const LEFT_OUT = ["kernels/README.md", "kernels/trials.md"];

/** Says nothing of who made it. */
const PLAIN = ["--format=ustar", "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rw,go=r"];

/** Lines of comments, of shaders too, which are for whoever reads the sources: types keep theirs. */
const DOCUMENTATION = /^[ \t]*(?:\/\*\*.*?\*\/\s*)+|^[ \t]*\/\/[^\n]*\n/gms;

/** Programs that need others, with a lock and permissions of their own. */
const PROGRAM = [
  ...["run", "--quiet", "--no-config", "--frozen", "--lock=package/pack.lock"],
  ...["--allow-read", "--allow-write", "--allow-env"],
];

const PACK: Program<{ readonly output: string | undefined }> = {
  usage: "deno task pack",
  action: "make the npm package",
  about: `\
Makes the npm package of deno.json and the sources: JavaScript and types that need no Deno, which
\`npm install FILE\` takes.`,
  flags: {
    output: text({ takes: "FILE", usual: undefined, help: "where it goes (out/syncbn.tgz)" }),
  },
  notes: "Exits with 1 if it cannot be made, with 2 for a wrong argument.",
};

/** Makes the tarball. */
export async function pack(output: string): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "syncbn_pack_" });
  try {
    const raw = `${folder}/raw.tgz`;
    await run(
      ROOT,
      Deno.execPath(),
      "pack",
      "--quiet",
      "--allow-dirty",
      "--no-source-maps",
      "-o",
      raw,
    );
    await run(folder, "tar", "-xzf", raw);
    await finish(`${folder}/package`);
    await run(ROOT, Deno.execPath(), ...PROGRAM, "package/minify.ts", `${folder}/package`);
    const whole = `${folder}/whole.tar`;
    await Deno.writeTextFile(`${folder}/list`, (await listOf(folder)).join("\n"));
    await run(folder, "tar", ...PLAIN, "-cf", whole, "-T", "list");
    await run(ROOT, Deno.execPath(), ...PROGRAM, "package/compress.ts", whole, output);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The files of a package, those of a kind side by side: they have their words in common, which packs 4 % tighter. */
async function listOf(folder: string): Promise<string[]> {
  const kinds = [".json", ".js", ".d.ts"];
  const kindOf = (file: string) => kinds.findIndex((kind) => file.endsWith(kind));
  const files = await filesIn(`${folder}/package`);
  return files.map((file) => file.slice(folder.length + 1))
    .sort((a, b) => kindOf(a) - kindOf(b) || (a < b ? -1 : 1));
}

/** Adds to an unpacked package what it lacks, and takes from it what nobody needs. */
async function finish(folder: string): Promise<void> {
  for (const file of LEFT_OUT) await Deno.remove(`${folder}/${file}`);
  const manifest = `${folder}/package.json`;
  await rewrite(
    manifest,
    (source) => JSON.stringify({ ...JSON.parse(source), ...MANIFEST }, null, 2),
  );
  for (const file of await filesIn(folder)) {
    if (file.endsWith(".js")) await rewrite(file, (source) => source.replace(DOCUMENTATION, ""));
    if (file.endsWith(".d.ts")) {
      await rewrite(file, (source) => {
        const libs = LIBS.filter(([name]) => name.test(source));
        return libs.map(([, lib]) => `/// <reference lib="${lib}" />\n`).join("") + source;
      });
    }
  }
}

async function rewrite(file: string, change: (text: string) => string): Promise<void> {
  await Deno.writeTextFile(file, change(await Deno.readTextFile(file)));
}

async function filesIn(folder: string): Promise<string[]> {
  const files: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const path = `${folder}/${name}`;
    files.push(...isDirectory ? await filesIn(path) : [path]);
  }
  return files;
}

async function run(cwd: string, command: string, ...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(command, { args, cwd }).output();
  if (success) return;
  const reason = new TextDecoder().decode(stderr);
  throw new Error(`Cannot make the package as ${command} ${args[0]} must succeed: ${reason}`);
}

async function main({ output: file }: { readonly output: string | undefined }): Promise<number> {
  if (file === undefined) await Deno.mkdir(`${ROOT}out`, { recursive: true });
  const output = resolve(file ?? `${ROOT}out/syncbn.tgz`);
  await pack(output);
  const { size } = await Deno.stat(output);
  console.log(`${output}: ${Math.round(size / 1000)} KB`);
  return 0;
}

if (import.meta.main) Deno.exit(await runProgram(PACK, Deno.args, main));
