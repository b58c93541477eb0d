/** The beginning and the end of MPI in a process. */

import { MpiError } from "./errors.ts";
import type { Launcher } from "./launcher.ts";
import { FUNNELED, handles, ints, type Library, wrongPair } from "./library.ts";
import { placeIn, reporting } from "./sub_groups.ts";

/** All ranks, joined. */
export interface World {
  /** A communicator of all ranks that nobody else uses. */
  readonly comm: bigint;
  /** This rank among those of its host. */
  readonly localRank: number;
  /** How many ranks are on this host. */
  readonly localSize: number;
}

/** Starts MPI and joins the other ranks; waits for them. */
export function joinWorld(library: Library, launcher: Launcher | null, checked: boolean): World {
  const { symbols, ok, commWorld } = library;
  start(library);
  reporting(library, commWorld);
  const { worldSize } = placeIn(library, commWorld);
  if (launcher && launcher.size !== worldSize) throw wrongPair(launcher, library);
  const comm = handles();
  ok(symbols.MPI_Comm_dup(commWorld, comm), "MPI_Comm_dup");
  reporting(library, comm[0]);
  compareChoices(library, comm[0], checked);
  const { rank: localRank, worldSize: localSize } = placeOnHost(library, comm[0]);
  return { comm: comm[0], localRank, localSize };
}

function start({ symbols, ok }: Library): void {
  const flag = ints();
  ok(symbols.MPI_Initialized(flag), "MPI_Initialized");
  if (flag[0] !== 0) {
    throw new MpiError(
      `Cannot make a second MPI group as MPI starts once per process: pass on the first, or split it`,
      "call",
    );
  }
  ok(symbols.MPI_Init_thread(null, null, FUNNELED, flag), "MPI_Init_thread");
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

function placeOnHost(library: Library, comm: bigint) {
  const { symbols, ok, commTypeShared, infoNull } = library;
  const host = handles();
  ok(
    symbols.MPI_Comm_split_type(comm, commTypeShared, 0, infoNull, host),
    "MPI_Comm_split_type",
  );
  const place = placeIn(library, host[0]);
  ok(symbols.MPI_Comm_free(host), "MPI_Comm_free");
  return place;
}
