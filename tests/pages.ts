/** The code blocks of README.md, docs/ and JSDoc, and running them, each as it is printed. */

import { globSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = new URL("../", import.meta.url);

/** A fenced block of a page. */
export interface Block {
  /** The path from the root of its page, or of its source. */
  readonly page: string;
  /** Line of the file on which the fence opens. */
  readonly line: number;
  /** What stands behind the fence, such as `ts` or `ts ignore`. */
  readonly info: string;
  /** What stands in it, with a line end. */
  readonly code: string;
}

/** What came of a block. */
export interface Outcome {
  /** What each call of `console.log` printed, white space made one. */
  readonly printed: readonly string[];
  /** What it threw, a `console.assert` that does not hold included; null where it came to its end. */
  readonly error: string | null;
}

/** README.md and all pages of docs/, in order. */
export async function pages(): Promise<readonly string[]> {
  const names: string[] = [];
  for await (const { name, isFile } of Deno.readDir(new URL("docs/", root))) {
    if (isFile && name.endsWith(".md")) names.push(`docs/${name}`);
  }
  return ["README.md", ...names.sort()];
}

/** The text of a page. */
export async function textOf(page: string): Promise<string> {
  return await Deno.readTextFile(new URL(page, root));
}

/** All blocks of all pages. */
export async function blocks(): Promise<readonly Block[]> {
  const all = await Promise.all(
    (await pages()).map(async (page) => blocksIn(page, await textOf(page))),
  );
  return all.flat();
}

/** All blocks that stand in JSDoc of what is published. */
export async function examples(): Promise<readonly Block[]> {
  const files = globSync(["mod.ts", "lib/**/*.ts", "kernels/**/*.ts"], {
    cwd: fileURLToPath(root),
  });
  const all = await Promise.all(
    files.sort().map(async (file) => examplesIn(file, await textOf(file))),
  );
  return all.flat();
}

/** The blocks in the JSDoc of a source, whose fences are those of a page. */
export function examplesIn(file: string, source: string): readonly Block[] {
  return [...source.matchAll(/^[^\S\n]*\/\*\*.*?\*\//gms)].flatMap(({ 0: comment, index }) => {
    const before = source.slice(0, index).split("\n").length - 1;
    // The comment's end closes no block.
    const text = comment.replace(/\*\/$/, "").replace(/^[^\S\n]*\* ?/gm, "");
    return blocksIn(file, text, before);
  });
}

/**
 * Finds the blocks of a page.
 *
 * @param page its path, for messages
 * @param text its text
 * @param before how many lines of the file come before it
 * @returns its blocks, in order
 * @throws Error for a fence that is indented, or never closed: it would be a block that no test sees
 */
export function blocksIn(page: string, text: string, before = 0): readonly Block[] {
  const found: Block[] = [];
  let open: { readonly line: number; readonly info: string; readonly code: string[] } | null = null;
  for (const [index, line] of text.split("\n").entries()) {
    const number = before + index + 1;
    const fence = /^(\s*)(`{3,}|~{3,})\s*(.*?)\s*$/.exec(line);
    if (fence && (fence[1] !== "" || fence[2] !== "```")) {
      throw new Error(
        `${page}:${number} must open and close blocks by three backticks at its start`,
      );
    }
    if (!fence) open?.code.push(line);
    else if (!open) open = { line: number, info: fence[3], code: [] };
    else {
      const { code, ...rest } = open;
      found.push({ page, ...rest, code: code.map((own) => `${own}\n`).join("") });
      open = null;
    }
  }
  if (open) throw new Error(`${page}:${open.line} opens a block that never ends`);
  return found;
}

/**
 * Writes blocks into a folder, each as a module of its own whose imports are found from there.
 *
 * @returns the address of each
 */
export async function written(
  programs: readonly Block[],
  folder: string,
): Promise<readonly string[]> {
  const exports: Record<string, string> = JSON.parse(await textOf("deno.json")).exports;
  return await Promise.all(programs.map(async (block) => {
    const file = `${folder}/${block.page.replace(/\W/g, "_")}_${block.line}.ts`;
    await Deno.writeTextFile(file, resolved(block, exports));
    return `file://${file}`;
  }));
}

/**
 * Runs blocks, each as a module of its own; those that want the same permissions in one process.
 *
 * A block that wants permissions says so in its first line, `// deno run --allow-net=127.0.0.1`; all others get none.
 *
 * @param programs TypeScript blocks, whose types `deno task ok` checks
 * @returns what came of each
 * @throws Error where a process ends before all of its blocks have run
 */
export async function run(programs: readonly Block[]): Promise<ReadonlyMap<Block, Outcome>> {
  const outcomes = new Map<Block, Outcome>();
  for (const [flags, group] of Map.groupBy(programs, flagsOf)) {
    const folder = await Deno.makeTempDir({ prefix: "syncbn_pages_" });
    try {
      const main = runnerOf(await written(group, folder));
      const child = new Deno.Command(Deno.execPath(), {
        // By standard input from the root, whose deno.json tells where development dependencies of examples/ are.
        args: [
          ...["run", "--quiet", "--no-prompt", "--no-check", "--ext=ts"],
          ...[...flags.split(" ").filter(Boolean), "-"],
        ],
        cwd: root,
        env: { NO_COLOR: "1" },
        ...{ stdin: "piped", stdout: "piped", stderr: "piped" },
      }).spawn();
      await new Blob([main]).stream().pipeTo(child.stdin);
      const { code, stdout, stderr } = await child.output();
      const text = new TextDecoder();
      if (code !== 0) throw new Error(`The blocks do not run: ${text.decode(stderr)}`);
      const results: Outcome[] = JSON.parse(text.decode(stdout));
      group.forEach((block, i) => outcomes.set(block, results[i]));
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  }
  return outcomes;
}

function flagsOf({ code }: Block): string {
  return /^\/\/ deno run((?: --allow-\S+)*)\n/.exec(code)?.[1].trim() ?? "";
}

/** A block whose imports are found from anywhere: the package's names, and paths from its page. */
function resolved({ page, code }: Block, exports: Readonly<Record<string, string>>): string {
  return code.replace(/(from "|import\(")([^"]+)"/g, (whole, before, specifier) => {
    if (specifier.startsWith(".")) return `${before}${new URL(specifier, new URL(page, root))}"`;
    const [, entry] = /^@syncbn\/syncbn(\/.*)?$/.exec(specifier) ?? [];
    if (!specifier.startsWith("@syncbn/syncbn")) return whole;
    return `${before}${new URL(exports[`.${entry ?? ""}`], root)}"`;
  });
}

/** A program that runs modules one after the other, and prints what came of each as JSON. */
function runnerOf(modules: readonly string[]): string {
  return `
    const { log } = console;
    const outcomes: unknown[] = [];
    const show = (value: unknown) => typeof value === "string" ? value : Deno.inspect(value);
    const modules = [${modules.map((module) => `() => import("${module}")`).join(", ")}];
    for (const load of modules) {
      const printed: string[] = [];
      console.log = (...values) => void printed.push(values.map(show).join(" ").replace(/\\s+/g, " "));
      console.assert = (holds) => {
        if (!holds) throw new Error("Assertion failed");
      };
      const error = await load().then(() => null, (thrown) => Deno.inspect(thrown));
      outcomes.push({ printed, error });
    }
    log(JSON.stringify(outcomes));
  `;
}

/**
 * Finds what a block says that it prints: the comment behind each call of \`console.log\`.
 *
 * @param code the block
 * @returns for each call in order its own source, and its comment, or null
 */
export function said(
  code: string,
): readonly { readonly call: string; readonly comment: string | null }[] {
  return [...code.matchAll(/console\.log\(/g)].map(({ index }) => {
    let depth = 0;
    let end = index;
    do {
      if ("([{".includes(code[end])) depth++;
      if (")]}".includes(code[end])) depth--;
      end++;
    } while (end < code.length && (depth > 0 || !code.slice(index, end).includes("(")));
    const [, comment] = /^;[^\S\n]*\/\/ (.*)$/m.exec(code.slice(end, code.indexOf("\n", end))) ??
      [];
    return { call: code.slice(index, end), comment: comment ?? null };
  });
}
