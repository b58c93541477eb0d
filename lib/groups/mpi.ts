/**
 * Process groups whose ranks are processes that `mpirun` started, on one machine or many: Open MPI or MPICH, loaded
 * through Deno's FFI. For Deno only; nothing of it runs, and no permission is asked for, before
 * {@linkcode mpiGroup} is called.
 *
 * @module
 */

import { checkInteger } from "../check_value.ts";
import type { ProcessGroup } from "../collectives.ts";
import { checkTimeout, processGroup } from "./engine.ts";
import { createEngine, type Session } from "./mpi/engine.ts";
import { MpiError } from "./mpi/errors.ts";
import { findLauncher, type MpiFamily } from "./mpi/launcher.ts";
import { openLibrary } from "./mpi/library.ts";
import { createMemory } from "./mpi/memory.ts";
import { createOperations } from "./mpi/operations.ts";
import { createProgress } from "./mpi/requests.ts";
import { joinWorld } from "./mpi/communicators.ts";

export { isMpiError, MpiError, type MpiErrorCode } from "./mpi/errors.ts";
export type { MpiFamily } from "./mpi/launcher.ts";

/** Options of {@linkcode mpiGroup}. */
export interface MpiOptions {
  /**
   * The MPI library: a path, or a name for the system's loader to find. By default that of the launcher that started
   * this process: `libmpi.so.40` or `libmpich.so.12`.
   */
  readonly library?: string;
  /** How long a rank waits in a call, from when its turn has come, in ms; Infinity for ever; 60,000 by default. */
  readonly timeoutMs?: number;
  /**
   * Whether ranks agree that they are about to do the same before each call moves values; true by default. Without it a
   * call is a few microseconds faster; ranks that call different things then get wrong numbers, hang or crash, a rank's
   * own failure breaks the group, and a `combine` must throw on all ranks or on none. The same on all ranks.
   */
  readonly checked?: boolean;
}

/** One rank's handle on the group of all processes that were started together. Frozen. */
export interface MpiGroup extends ProcessGroup {
  /** Which MPI this is. */
  readonly family: MpiFamily;
  /** The library's own description. */
  readonly library: string;
  /** This rank's number among those on its host, 0 .. localSize - 1: to pick a device by. */
  readonly localRank: number;
  /** How many of the ranks are on this host. */
  readonly localSize: number;
  /**
   * Ends MPI once all ranks have called it, and with it the group and its sub-groups. Every rank that ends well must
   * wait for it, else the launcher takes the whole job for failed.
   *
   * @throws (rejects with) MpiError when called again, while calls are pending, or where the group or a sub-group is broken, after which
   *   only `abort` is left; CollectiveError, as every collective, where a rank does not come
   */
  readonly close: () => Promise<void>;
  /**
   * Ends all ranks at once, those that wait too; never returns.
   *
   * @param code the exit code, 1 .. 255; 1 by default
   * @throws RangeError for another
   */
  readonly abort: (code?: number) => never;
}

/** The exit code of a rank that just ends, without `close` or `abort`. */
const UNFINISHED = 70;

/**
 * Joins the ranks that `mpirun` has started. Starts MPI, which can be done once per process, on its main thread, and
 * waits for all ranks without giving way to the event loop.
 *
 * Each call is one MPI operation at a time per group, in program order, while the event loop goes on; sums are MPI's
 * own, any other `combine` is called back by MPI, in rank order but not always from left to right; from 65,536 values
 * on by one rank after the other, from left to right, so that none holds the arrays of all. Every rank gets the same
 * bits. Ranks that disagree or fail give the same CollectiveError to all, and the group stays usable; after a deadline
 * or cancellation it is broken on all ranks, and only `abort` is left; a rank whose part was complete by then hears of
 * it in its next call. Functions are compared by their names. A broken sub-group leaves the group it was split from
 * usable, but not fit for `close`. Sub-groups last until MPI ends: split once, not in every step. The last step of a
 * split, in which all ranks have met, and the end of `close` hold up the event loop and know no deadline.
 *
 * A rank that throws or is killed ends the whole job, by the launcher, with a code that is not 0. So does one that just
 * ends: its exit code becomes 70. There is no `Symbol.asyncDispose`, since a disposal runs after an error too, when
 * the others may never come to `close`.
 *
 * Without a launcher this process is a world of one. Needs `--allow-ffi` and
 * `--allow-env=OMPI_COMM_WORLD_SIZE,PMI_SIZE,MPI_LOCALNRANKS`.
 *
 * @returns this rank's handle, frozen
 * @throws RangeError for an impossible deadline, and where `checked` is not the same on all ranks
 * @throws MpiError where a permission or the library is missing, where launcher and library are of different families,
 *   in a worker, or where MPI was started before
 *
 * @example `mpirun -n 2 deno run --allow-ffi --allow-env sum.ts`
 * ```ts ignore
 * import { sum } from "@syncbn/syncbn";
 * import { mpiGroup } from "@syncbn/syncbn/mpi";
 *
 * const group = mpiGroup();
 * const [total] = await group.allReduce(Float64Array.of(group.rank), sum);
 * console.log(`rank ${group.rank} of ${group.worldSize}: ${total}`);
 * await group.close();
 * ```
 */
export function mpiGroup(options: MpiOptions = {}): MpiGroup {
  const { library: path, timeoutMs = 60_000, checked = true } = options;
  checkTimeout(timeoutMs);
  checkThread();
  const launcher = findLauncher();
  const library = openLibrary(path, launcher);
  let finished = () => {};
  const { comm, onHost } = joinWorld(library, launcher, checked, () => finished = guardEnd());
  // Open MPI gives way to other processes when its launcher has seen that there are too many; MPICH never does.
  const crowded = library.family === "MPICH" && onHost.worldSize > navigator.hardwareConcurrency;
  const memory = createMemory();
  const session: Session = {
    library,
    progress: createProgress(library, crowded),
    operations: createOperations(library, memory),
    memory,
    checked,
    timeoutMs,
    engines: [],
    splitting: Promise.resolve(),
  };
  const group = processGroup(createEngine(session, comm));
  let closed = false;
  return Object.freeze({
    ...group,
    family: library.family,
    library: library.version,
    localRank: onHost.rank,
    localSize: onHost.worldSize,
    close: async () => {
      if (closed) throw ended();
      checkEnd(session);
      await group.barrier({ label: "close" });
      checkEnd(session);
      for (const engine of session.engines) engine.end(ended());
      closed = true;
      session.operations.close();
      library.ok(library.symbols.MPI_Finalize(), "MPI_Finalize");
      finished();
    },
    abort: (code = 1) => {
      checkInteger(code, "the exit code", "abort the MPI group", 1, 255);
      if (closed) return Deno.exit(code);
      library.symbols.MPI_Abort(library.commWorld, code);
      return Deno.exit(code); // MPI_Abort does not return, says the standard, where it can end the process.
    },
  });
}

function checkThread(): void {
  if (typeof globalThis.Deno?.dlopen !== "function") {
    throw new MpiError(
      "Cannot make the MPI group as the platform must be Deno, by whose Deno.dlopen MPI is called: " +
        "current value is undefined; run the program in Deno, or take workers",
      "unsupported",
    );
  }
  if (!("WorkerGlobalScope" in globalThis)) return;
  throw new MpiError(
    "Cannot make the MPI group as it must be made on the main thread of a process: this is a worker",
    "call",
  );
}

/** Refuses to end MPI where it would wait for ever. */
function checkEnd({ engines }: Session): void {
  for (const { broken, busy, worldSize } of engines) {
    const cause = broken();
    if (cause) {
      const intact = `it and its sub-groups must be intact, one of ${worldSize} ranks is not`;
      const message = `Cannot close the MPI group as ${intact}: call abort(); ${cause.message}`;
      throw new MpiError(message, "call", { cause });
    }
    if (!busy()) continue;
    throw new MpiError(`Cannot close the MPI group as no call must be pending: await them`, "call");
  }
}

function ended(): MpiError {
  return new MpiError(`Cannot call anything on the group as close() has ended MPI`, "call");
}

/** Lets a process that ends before MPI fail: MPICH's launcher takes an exit code of 0 at its word. */
function guardEnd(): () => void {
  const guard = () => {
    if (Deno.exitCode !== 0) return;
    Deno.exitCode = UNFINISHED;
    const line =
      `This rank of an MPI group ended without close() or abort(): exit code ${UNFINISHED}\n`;
    Deno.stderr.writeSync(new TextEncoder().encode(line));
  };
  globalThis.addEventListener("unload", guard);
  return () => globalThis.removeEventListener("unload", guard);
}
