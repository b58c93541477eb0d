/**
 * Messages between ranks outside of the collectives, for when these have come to a halt: small, of a fixed size, sent
 * without waiting for anybody.
 */

import type { PlainFailure } from "../failures.ts";
import { handles, ints, type Library } from "./library.ts";

/** Where a rank stands. */
export interface Presence {
  readonly call: number;
  /** How long it has been in it, in ms; as its asker keeps it, how long before the question it came. */
  readonly waitedMs: number;
  /** Waiting for the others, for its own values, or for the others to hear of its failure. */
  readonly state: "waiting" | "unready" | "failed";
  readonly message?: string;
}

/** What a rank tells another. */
export type Alarm =
  /** The group is broken: by this failure, or by a deadline, for which all have to say where they stand. */
  | { readonly kind: "query"; readonly from: number; readonly failure?: PlainFailure }
  | { readonly kind: "present"; readonly from: number; readonly at: Presence | null }
  /** What all have to reject with. */
  | { readonly kind: "verdict"; readonly from: number; readonly failure: PlainFailure };

/** One rank's end on one communicator. */
export type Mailbox = ReturnType<typeof openMailbox>;

/** Point-to-point messages do not mix with collectives of the same communicator. */
const TAG = 1;

/** How many looks, per rank, bring in everything that was sent a while ago. */
const PROBES = 8;

/** Below 3 KiB for 128 ranks: MPI sends such messages at once, whether or not somebody receives them. */
function sizeFor(worldSize: number): number {
  return 2048 + 8 * worldSize;
}

/** Opens a mailbox. */
export function openMailbox(library: Library, comm: bigint, rank: number, worldSize: number) {
  const { symbols, ok, byte, anySource, statusIgnore } = library;
  const size = sizeFor(worldSize);
  const room = new Uint8Array(size);
  const flag = ints();
  const others = Array.from({ length: worldSize }, (_, other) => other).filter((r) => r !== rank);
  /** What is on its way, with the bytes that MPI reads until it has left. */
  let sendings: (readonly [handle: BigUint64Array<ArrayBuffer>, bytes: Uint8Array])[] = [];

  function post(to: number, bytes: Uint8Array<ArrayBuffer>): void {
    const handle = handles();
    sendings.push([handle, bytes]);
    ok(symbols.MPI_Isend(bytes, size, byte, to, TAG, comm, handle), "MPI_Isend");
  }

  return {
    send: (to: number, alarm: Alarm): void => post(to, encode(alarm, size)),
    sendAll: (alarm: Alarm): void => {
      const bytes = encode(alarm, size);
      for (const other of others) post(other, bytes);
    },
    /** The next message, or null where there is none. */
    receive: (): Alarm | null => {
      if (worldSize === 1) return null;
      ok(symbols.MPI_Iprobe(anySource, TAG, comm, flag, statusIgnore), "MPI_Iprobe");
      if (flag[0] === 0) return null;
      ok(symbols.MPI_Recv(room, size, byte, anySource, TAG, comm, statusIgnore), "MPI_Recv");
      return decode(room);
    },
    /** Helps MPI to see what has arrived: it may take in one message at a time, and those of collectives first. */
    catchUp: (): void => {
      for (let i = 0; i < PROBES * worldSize && worldSize > 1; i++) {
        ok(symbols.MPI_Iprobe(anySource, TAG, comm, flag, statusIgnore), "MPI_Iprobe");
        if (flag[0] !== 0) return;
      }
    },
    /** Whether everything sent has left; gives MPI the time to see to it. */
    flushed: (): boolean => {
      sendings = sendings.filter(([handle]) => {
        ok(symbols.MPI_Test(handle, flag, statusIgnore), "MPI_Test");
        return flag[0] === 0;
      });
      return sendings.length === 0;
    },
  };
}

/** Shortens a failure until it fits into a message, so that it reads the same where it was made and where it was sent. */
export function fit(failure: PlainFailure, worldSize: number): PlainFailure {
  const size = sizeFor(worldSize);
  const bytesOf = (own: PlainFailure) => textOf({ kind: "verdict", from: 2 ** 31, failure: own });
  let fitting = failure;
  for (let length = failure.message.length; bytesOf(fitting).length > size;) {
    length = Math.floor(length * 0.9);
    fitting = { ...failure, message: `${failure.message.slice(0, length)}...` };
  }
  return fitting;
}

function textOf(alarm: Alarm): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(alarm));
}

function encode(alarm: Alarm, size: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(size);
  bytes.set(textOf(alarm));
  return bytes;
}

function decode(bytes: Uint8Array): Alarm {
  const end = bytes.indexOf(0);
  return JSON.parse(new TextDecoder().decode(bytes.subarray(0, end < 0 ? bytes.length : end)));
}
