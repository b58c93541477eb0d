/** Programs of a page of docs/, those blocks whose first line names a file, as they are printed, in a folder of their own. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { blocksIn, textOf } from "../pages.ts";

const root = new URL("../../", import.meta.url);
const CONFIG = ["--quiet", `--config=${fileURLToPath(new URL("deno.json", root))}`];
const LOCK = ["--frozen", `--lock=${fileURLToPath(new URL("adapters.lock", import.meta.url))}`];
const ALLOWED = ["--allow-read", "--allow-env", "--allow-sys"];

/** The programs of a page, by name, with the library's sources in the place of its entry points. */
export async function programsOf(page: string): Promise<ReadonlyMap<string, string>> {
  const { exports }: { exports: Record<string, string> } = JSON.parse(await textOf("deno.json"));
  const named = blocksIn(page, await textOf(page)).flatMap(({ code }) => {
    const name = /^\/\/ (\w+\.ts)\b/.exec(code)?.[1];
    return name === undefined ? [] : [[name, code] as const];
  });
  const resolved = (code: string) =>
    code.replace(
      /"@syncbn\/syncbn(\/[a-z]+)?"/g,
      (_, entry = "") => `"${new URL(exports[`.${entry}`], root)}"`,
    );
  return new Map(named.map(([name, code]) => [name, resolved(code)]));
}

/** Deno on the files of a folder. */
export type Run = (command: "check" | "run", ...files: readonly string[]) => Promise<string>;

/** Gives a body a folder with these files, and what runs them. */
export async function withPrograms(
  files: ReadonlyMap<string, string>,
  body: (run: Run) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "syncbn_docs_" });
  try {
    for (const [name, code] of files) await Deno.writeTextFile(`${folder}/${name}`, code);
    await body(async (command, ...files) => {
      const allowed = command === "run" ? ["--no-check", ...ALLOWED] : [];
      const paths = files.map((name) => `${folder}/${name}`);
      const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: [command, ...CONFIG, ...LOCK, ...allowed, ...paths],
        cwd: fileURLToPath(root),
        env: { NO_COLOR: "1" },
      }).output();
      const text = new TextDecoder();
      assert(success, text.decode(stderr));
      return text.decode(stdout);
    });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The numbers of the last list that was printed. */
export function numbersIn(printed: string): readonly number[] {
  return /\[([^\]]*)\]\s*$/.exec(printed)?.[1].split(",").map((part) => part.trim())
    .filter((part) => part !== "").map(Number) ?? [];
}
