/** What programs say of wrong flags, in this process: to start one takes longer than all else of it. */

import assert from "node:assert/strict";
import type { Program } from "../examples/command_line.ts";
import { runProgram } from "../examples/run_program.ts";

/** Fails unless a program refuses each list of flags, in one line that matches, and with 2. */
export async function assertRefused<T>(
  program: Program<T>,
  calls: readonly (readonly [flags: readonly string[], text: RegExp])[],
): Promise<void> {
  for (const [flags, text] of calls) {
    const said: unknown[][] = [];
    const { error } = console;
    console.error = (...values) => said.push(values);
    try {
      assert.equal(await runProgram(program, flags, () => assert.fail("it runs")), 2);
    } finally {
      console.error = error;
    }
    const [[line], ...rest] = said;
    assert.equal(rest.length, 0);
    assert.match(String(line), text);
    assert.match(String(line), new RegExp(`^Cannot ${program.action} as [^\n]*$`));
  }
}
