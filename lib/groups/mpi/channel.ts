/** The operations on one communicator, one at a time and none of them waiting. */

import { handles, ints, type Library } from "./library.ts";
import { placeIn } from "./communicators.ts";

/** Memory that MPI reads and writes. */
export type Room = Float64Array<ArrayBuffer>;

/** Yields how many bytes what was started last on the channel moves, until it is complete. */
export type Steps<T> = Generator<number, T, void>;

/** Another than that of the mailbox, which looks for messages from anybody. */
const TAG = 2;

/** A communicator, opened. */
export type Channel = ReturnType<typeof openChannel>;

/** Opens a communicator. Every function throws an MpiError where MPI reports one. */
export function openChannel(library: Library, comm: bigint) {
  const { symbols, ok, inPlace, double, statusIgnore } = library;
  const request = handles();
  const flag = ints();
  return {
    ...placeIn(library, comm),
    library,
    /** Starts to fold `count` elements of a datatype from every rank by an operation. */
    reduce: (sent: Room, received: Room, count: number, type: bigint, op: bigint): void => {
      const code = symbols.MPI_Iallreduce(sent, received, count, type, op, comm, request);
      ok(code, "MPI_Iallreduce");
    },
    /** Starts to gather `length` elements of every rank; this rank's lie at its place in the room already. */
    gather: (room: Room | Uint8Array<ArrayBuffer>, length: number, type: bigint): void => {
      const code = symbols.MPI_Iallgather(inPlace, 0, type, room, length, type, comm, request);
      ok(code, "MPI_Iallgather");
    },
    /** Starts to send the root's float64 to all. */
    broadcast: (room: Room, length: number, root: number): void =>
      ok(symbols.MPI_Ibcast(room, length, double, root, comm, request), "MPI_Ibcast"),
    /** Starts to send `length` float64 to one rank. */
    send: (room: Room, length: number, to: number): void =>
      ok(symbols.MPI_Isend(room, length, double, to, TAG, comm, request), "MPI_Isend"),
    /** Starts to receive them there. */
    receive: (room: Room, length: number, from: number): void =>
      ok(symbols.MPI_Irecv(room, length, double, from, TAG, comm, request), "MPI_Irecv"),
    barrier: (): void => ok(symbols.MPI_Ibarrier(comm, request), "MPI_Ibarrier"),
    /** Whether what was started last is complete; helps it on. */
    test: (): boolean => {
      ok(symbols.MPI_Test(request, flag, statusIgnore), "MPI_Test");
      return flag[0] !== 0;
    },
  };
}
