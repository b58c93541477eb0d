/** Communicators of sub-groups. */

import { handles, ints, type Library } from "./library.ts";

/**
 * Divides a communicator. Waits without giving way to the event loop, so all ranks have to be at it: they have just met.
 */
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
