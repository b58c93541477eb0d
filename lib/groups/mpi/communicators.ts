/** Communicators: that of all ranks, with which MPI begins, and those of sub-groups. */

import { MpiError } from "./errors.ts";
import type { Launcher } from "./launcher.ts";
import { FUNNELED, handles, ints, type Library, wrongPair } from "./library.ts";

/** Starts MPI, tells so, and joins the other ranks, on a communicator that nobody else uses; waits for them. */
export function joinWorld(
  library: Library,
  launcher: Launcher | null,
  checked: boolean,
  started: () => void,
) {
  const { symbols, ok, commWorld } = library;
  start(library, started);
  reporting(library, commWorld);
  const { worldSize } = placeIn(library, commWorld);
  if (launcher && launcher.size !== worldSize) throw wrongPair(launcher, library);
  const comm = handles();
  ok(symbols.MPI_Comm_dup(commWorld, comm), "MPI_Comm_dup");
  reporting(library, comm[0]);
  compareChoices(library, comm[0], checked);
  return { comm: comm[0], onHost: placeOnHost(library, comm[0]) };
}

function start({ symbols, ok }: Library, started: () => void): void {
  const flag = ints();
  ok(symbols.MPI_Initialized(flag), "MPI_Initialized");
  if (flag[0] !== 0) {
    throw new MpiError(
      `Cannot make a second MPI group as MPI starts once per process: pass on the first, or split it`,
      "call",
    );
  }
  ok(symbols.MPI_Init_thread(null, null, FUNNELED, flag), "MPI_Init_thread");
  started();
  if (flag[0] >= FUNNELED) return;
  throw new MpiError(
    `Cannot make the MPI group as the library must allow for other threads in the process: ` +
      `its thread level is ${flag[0]}`,
    "library",
  );
}

function compareChoices(library: Library, comm: bigint, checked: boolean): void {
  const { symbols, ok, double, max } = library;
  const own = checked ? Float64Array.of(1, -1) : Float64Array.of(0, -0);
  const most = new Float64Array(2);
  ok(symbols.MPI_Allreduce(own, most, 2, double, max, comm), "MPI_Allreduce");
  if (most[0] === -most[1]) return;
  throw new RangeError(
    `Cannot make the MPI group as checked must be the same on all ranks: this rank's is ${checked}`,
  );
}

/** This rank among those of its host. */
function placeOnHost(library: Library, comm: bigint): Place {
  const { symbols, ok, commTypeShared, infoNull } = library;
  const host = handles();
  const code = symbols.MPI_Comm_split_type(comm, commTypeShared, 0, infoNull, host);
  ok(code, "MPI_Comm_split_type");
  const place = placeIn(library, host[0]);
  ok(symbols.MPI_Comm_free(host), "MPI_Comm_free");
  return place;
}

/** Divides a communicator without giving way to the event loop: all ranks are at it, as they have just met. */
export function divide(
  library: Library,
  comm: bigint,
  wishes: readonly Float64Array[],
  rank: number,
): bigint {
  const { symbols, ok } = library;
  const part = handles();
  // MPI takes small integers: the places of the numbers among those of all ranks.
  const [color, key] = [0, 1].map((which) => placeOf(wishes, which, rank));
  ok(symbols.MPI_Comm_split(comm, color, key, part), "MPI_Comm_split");
  return reporting(library, part[0]);
}

/** How many ranks of a communicator there are, and which of them this is. */
export interface Place {
  readonly rank: number;
  readonly worldSize: number;
}

/** Finds this rank's place in a communicator. */
export function placeIn({ symbols, ok }: Library, comm: bigint): Place {
  const [rank, worldSize] = [ints(), ints()];
  ok(symbols.MPI_Comm_rank(comm, rank), "MPI_Comm_rank");
  ok(symbols.MPI_Comm_size(comm, worldSize), "MPI_Comm_size");
  return { rank: rank[0], worldSize: worldSize[0] };
}

/** Makes errors on a communicator return codes: by default they end the process. */
export function reporting({ symbols, ok, errorsReturn }: Library, comm: bigint): bigint {
  ok(symbols.MPI_Comm_set_errhandler(comm, errorsReturn), "MPI_Comm_set_errhandler");
  return comm;
}

function placeOf(wishes: readonly Float64Array[], which: number, rank: number): number {
  const distinct = [...new Set(wishes.map((wish) => wish[which]))].sort((a, b) => a - b);
  return distinct.indexOf(wishes[rank][which]);
}
