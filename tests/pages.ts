/** The code blocks of README.md and docs/, and running them: many programs in one process, each as it is printed. */

const root = new URL("../", import.meta.url);

/** A fenced block of a page. */
export interface Block {
  /** The page's path from the root. */
  readonly page: string;
  /** Line of the page on which the fence opens. */
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

/**
 * Finds the blocks of a page.
 *
 * @param page its path, for messages
 * @param text its text
 * @returns its blocks, in order
 * @throws Error for a fence that is indented, or never closed: it would be a block that no test sees
 */
export function blocksIn(page: string, text: string): readonly Block[] {
  const found: Block[] = [];
  let open: { readonly line: number; readonly info: string; readonly code: string[] } | null = null;
  for (const [index, line] of text.split("\n").entries()) {
    const fence = /^(\s*)(`{3,}|~{3,})\s*(.*?)\s*$/.exec(line);
    if (fence && (fence[1] !== "" || fence[2] !== "```")) {
      throw new Error(
        `${page}:${index + 1} must open and close blocks by three backticks at its start`,
      );
    }
    if (!fence) open?.code.push(line);
    else if (!open) open = { line: index + 1, info: fence[3], code: [] };
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
 * Runs blocks, each as a module of its own; those that want the same permissions in one process.
 *
 * A block that wants permissions says so in its first line, `// deno run --allow-net=127.0.0.1`; all others get none.
 *
 * @param programs TypeScript blocks
 * @returns what came of each
 * @throws Error where a block does not pass the type checker, or its process ends before all have run
 */
export async function run(programs: readonly Block[]): Promise<ReadonlyMap<Block, Outcome>> {
  const exports: Record<string, string> = JSON.parse(await textOf("deno.json")).exports;
  const outcomes = new Map<Block, Outcome>();
  for (const [flags, group] of Map.groupBy(programs, flagsOf)) {
    const folder = await Deno.makeTempDir({ prefix: "syncbn_pages_" });
    try {
      const files = group.map(({ page, line }) => `${page.replace(/\W/g, "_")}_${line}.ts`);
      const sources = group.map((block) => resolved(block, exports));
      await Promise.all(
        files.map((file, i) => Deno.writeTextFile(`${folder}/${file}`, sources[i])),
      );
      const main = runnerOf(files.map((file) => `file://${folder}/${file}`));
      const child = new Deno.Command(Deno.execPath(), {
        // By standard input from the root, whose deno.json tells where development dependencies of examples/ are.
        args: [
          ...["run", "--quiet", "--no-prompt", "--check", "--ext=ts"],
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
function runnerOf(files: readonly string[]): string {
  return `
    const { log } = console;
    const outcomes: unknown[] = [];
    const show = (value: unknown) => typeof value === "string" ? value : Deno.inspect(value);
    const modules = [${files.map((file) => `() => import("${file}")`).join(", ")}];
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
