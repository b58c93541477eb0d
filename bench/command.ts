/** Command lines: `--help` answers without doing the work, bad input ends with exit code 2 and a sentence. */

import { parseArgs } from "node:util";

/** Ends the process with a sentence: something on the command line cannot be. */
export function refuse(sentence: string): never {
  console.error(sentence);
  Deno.exit(2);
}

/**
 * Reads the arguments of a task by its help, which is what declares them: a line per flag, a capital word after those that
 * take a value; positionals are allowed where the usage ends with their name.
 */
export function commandLine(help: string) {
  if (Deno.args.includes("--help") || Deno.args.includes("-h")) {
    console.log(help);
    Deno.exit(0);
  }
  const lines = [...help.matchAll(/^ {2}--([a-z-]+)( [A-Z]+)?/gm)];
  const options = Object.fromEntries(
    lines.map((
      [, name, value],
    ) => [name, { type: value ? "string" as const : "boolean" as const }]),
  );
  try {
    const { values, positionals } = parseArgs({
      ...{ allowPositionals: true, options, args: Deno.args },
    });
    if (positionals.length > 0 && !/^Usage: .*\.\.\.\]$/m.test(help)) {
      refuse(`Cannot start as this task takes flags alone: current value is ${positionals}`);
    }
    return {
      positionals,
      has: (flag: string) => values[flag] === true,
      /** The value of a flag, or what stands in for it. */
      value: (flag: string, otherwise: string) => String(values[flag] ?? otherwise),
    };
  } catch (error) {
    const code = (error as { readonly code?: string }).code;
    if (!code?.startsWith("ERR_PARSE_ARGS")) throw error;
    refuse(`Cannot start as the flags must be known ones: ${(error as Error).message}; see --help`);
  }
}

export function integer(flag: string, value: string): number {
  const number = Number(value);
  if (Number.isSafeInteger(number) && number > 0) return number;
  return refuse(`Cannot start as ${flag} must be a positive integer: current value is ${value}`);
}

/** What is left of what can be measured, where positionals name shapes as tables write them. */
export function chosen<T>(
  all: readonly T[],
  names: readonly string[],
  shapeOf: (one: T) => readonly number[],
): readonly T[] {
  const known = new Set(all.map((one) => `[${shapeOf(one)}]`));
  const strange = names.filter((name) => !known.has(name));
  if (strange.length > 0) {
    refuse(
      `Cannot measure as the shapes must be among ${[...known].join(" ")}: ` +
        `current value is ${strange}`,
    );
  }
  return all.filter((one) => names.length === 0 || names.includes(`[${shapeOf(one)}]`));
}
