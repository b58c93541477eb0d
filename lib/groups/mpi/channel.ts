/** The operations on one communicator, one at a time and none of them waiting. */

import { handles, ints, type Library } from "./library.ts";
import { type Place, placeIn } from "./sub_groups.ts";

/** Memory that MPI reads and writes. */
export type Room = Float64Array<ArrayBuffer>;

/** Yields how many bytes what was started last on the channel moves, until it is complete. */
export type Steps<T> = Generator<number, T, void>;

/** Another than that of the mailbox, which looks for messages from anybody. */
const TAG = 2;

/** A communicator. Every function throws an MpiError where MPI reports one. */
export interface Channel extends Place {
  readonly library: Library;
  readonly comm: bigint;
  /** Starts to fold `count` elements of a datatype from every rank by an operation. */
  readonly reduce: (sent: Room, received: Room, count: number, type: bigint, op: bigint) => void;
  /** Starts to gather `length` elements of every rank; this rank's lie at its place in the room already. */
  readonly gather: (room: Room | Uint8Array<ArrayBuffer>, length: number, type: bigint) => void;
  /** Starts to send the root's float64 to all. */
  readonly broadcast: (room: Room, length: number, root: number) => void;
  /** Starts to send `length` float64 to one rank. */
  readonly send: (room: Room, length: number, to: number) => void;
  /** Starts to receive them there. */
  readonly receive: (room: Room, length: number, from: number) => void;
  /** Starts to wait for all. */
  readonly barrier: () => void;
  /** Whether what was started last is complete; helps it on. */
  readonly test: () => boolean;
}

/** Opens a communicator. */
export function openChannel(library: Library, comm: bigint): Channel {
  const { symbols, ok, inPlace, double, statusIgnore } = library;
  const request = handles();
  const flag = ints();
  return {
    ...placeIn(library, comm),
    library,
    comm,
    reduce: (sent, received, count, type, op) => {
      const code = symbols.MPI_Iallreduce(sent, received, count, type, op, comm, request);
      ok(code, "MPI_Iallreduce");
    },
    gather: (room, length, type) => {
      const code = symbols.MPI_Iallgather(inPlace, 0, type, room, length, type, comm, request);
      ok(code, "MPI_Iallgather");
    },
    broadcast: (room, length, root) =>
      ok(symbols.MPI_Ibcast(room, length, double, root, comm, request), "MPI_Ibcast"),
    send: (room, length, to) =>
      ok(symbols.MPI_Isend(room, length, double, to, TAG, comm, request), "MPI_Isend"),
    receive: (room, length, from) =>
      ok(symbols.MPI_Irecv(room, length, double, from, TAG, comm, request), "MPI_Irecv"),
    barrier: () => ok(symbols.MPI_Ibarrier(comm, request), "MPI_Ibarrier"),
    test: () => {
      ok(symbols.MPI_Test(request, flag, statusIgnore), "MPI_Test");
      return flag[0] !== 0;
    },
  };
}
