/** Command lines: `--help` answers without doing the work, bad input ends with exit code 2 and a sentence. */

import { parseArgs, type ParseArgsOptionsConfig } from "node:util";

/** Ends the process with a sentence: something on the command line cannot be. */
export function refuse(sentence: string): never {
  console.error(sentence);
  Deno.exit(2);
}

/**
 * Reads the arguments of a task.
 *
 * @param help what `--help` prints
 * @param options flags, as `parseArgs` takes them
 * @param named what positionals are called; none are allowed without it
 */
export function commandLine<T extends ParseArgsOptionsConfig>(
  help: string,
  options: T,
  named?: string,
) {
  const parse = () => parseArgs({ allowPositionals: true, options, args: Deno.args });
  if (Deno.args.includes("--help") || Deno.args.includes("-h")) {
    console.log(help);
    Deno.exit(0);
  }
  try {
    const parsed = parse();
    if (named !== undefined || parsed.positionals.length === 0) return parsed;
    refuse(`Cannot start as this task takes flags alone: current value is ${parsed.positionals}`);
  } catch (error) {
    const code = (error as { readonly code?: string }).code;
    if (!code?.startsWith("ERR_PARSE_ARGS")) throw error;
    refuse(`Cannot start as the flags must be known ones: ${(error as Error).message}; see --help`);
  }
}

/** A positive integer from the command line. */
export function integer(flag: string, value: string): number {
  const number = Number(value);
  if (Number.isSafeInteger(number) && number > 0) return number;
  return refuse(`Cannot start as ${flag} must be a positive integer: current value is ${value}`);
}
