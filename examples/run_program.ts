/**
 * Running a program by its command line. Exit codes: what the program returns, 1 for an error of ours, 2 for what its
 * user can mend.
 *
 * @module
 */

import { helpOf, parseCommandLine, type Program } from "./command_line.ts";
import { isStartError } from "./start_error.ts";

/**
 * Does what a command line asks for.
 *
 * @param program what it takes
 * @param args the arguments, without the program's name
 * @param run the work; what it throws by `startError`, and a permission that it lacks, are told in one line
 * @returns the exit code
 * @throws (rejects with) any other error of the work
 */
export async function runProgram<T>(
  program: Program<T>,
  args: readonly string[],
  run: (values: Readonly<T>, operands: readonly string[]) => number | Promise<number>,
): Promise<number> {
  const line = parseCommandLine(program, args);
  if (line.kind === "help") {
    console.log(helpOf(program));
    return 0;
  }
  if (line.kind === "wrong") {
    console.error(`Cannot ${program.action} as ${line.reason}`);
    return 2;
  }
  try {
    return await run(line.values, line.operands);
  } catch (error) {
    const sentence = sentenceOf(program, error);
    if (sentence === undefined) throw error;
    console.error(sentence);
    return 2;
  }
}

/**
 * Says in one line what a user can mend.
 *
 * @param program whose user
 * @param error what was thrown
 * @returns the line, or undefined where the error is another
 */
export function sentenceOf(
  { action, usage }: Pick<Program<unknown>, "action" | "usage">,
  error: unknown,
): string | undefined {
  if (isStartError(error)) return `Cannot ${action} as ${error.message}`;
  if (!(error instanceof Deno.errors.NotCapable)) return;
  const [lacking] = error.message.replace(/^Requires /, "").split(/, run again with|\n/);
  return `Cannot ${action} as Deno must allow ${lacking}: it does not; ` +
    `${usage} does, and so does deno run --allow-all`;
}
