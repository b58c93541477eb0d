/**
 * What the demo may do: its task allows what any group needs, of which most runs need little.
 *
 * @module
 */

import { startError } from "./start_error.ts";

/** Hands back what is allowed for MPI: programs, libraries, variables. */
export async function dropMpi(): Promise<void> {
  for (const name of ["run", "ffi", "env"] as const) await Deno.permissions.revoke({ name });
}

/**
 * Checks that workers can be started: Deno asks for a permission to read what they load, other than for a program's own
 * modules.
 *
 * @throws (rejects with) a start error where there is none
 */
export async function checkWorkers(): Promise<void> {
  for (const path of ["../mod.ts", "../lib", "../kernels", "."]) {
    const { state } = await Deno.permissions.query({
      name: "read",
      path: new URL(path, import.meta.url),
    });
    if (state === "granted") continue;
    throw startError(
      "--group workers must be allowed to read the modules of its workers: " +
        "run deno with --allow-read=examples,lib,kernels,mod.ts",
    );
  }
}
