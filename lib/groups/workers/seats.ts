/**
 * Seats: what a worker is handed so that it can take its place in a group, over shared memory or over a port.
 */

import type { ProcessGroup } from "../../collectives.ts";
import { coreCount, mayBlock, sharesMemory } from "../../threads.ts";
import { checkWorld, type Engine, processGroup } from "../engine.ts";
import { display, takenBefore } from "../failures.ts";
import { checkMemory, claimSeat, createMemory } from "./arena.ts";
import { openHub } from "./hub.ts";
import { portEnd } from "./port_end.ts";
import { leaveShared, sharedEngine } from "./shared_engine.ts";

/** Options of {@linkcode workerSeats}. */
export interface SeatOptions {
  /** How long a rank whose turn has come waits for the others, in ms; Infinity for ever; 60,000 by default. */
  readonly timeoutMs?: number;
  /**
   * How ranks reach each other: `"shared"` memory (fast), a message `"port"` each to the thread that made the seats
   * (works everywhere; that thread keeps what it knows of sub-groups until `close`), or `"auto"`, the default: shared
   * memory where threads may share it.
   */
  readonly transport?: "auto" | "shared" | "port";
  /**
   * Numbers that a rank can bring to a call at once, 131,136 by default (1 MiB; statistics of 65,567 channels); over shared
   * memory in sub-groups 8,192 at most. Longer arrays travel in pieces, and no rank holds more than four times its own:
   * what declares to be `elementwise` is reduced in shares, all else is folded whole, by one rank after the other. Over
   * shared memory every group has 2 * worldSize + 2 times as much address space; memory is used where it is written to.
   */
  readonly capacity?: number;
}

/** One rank's place in a group. A plain record: hand it to the rank's worker by `postMessage(seat, transfers(seat))`. */
export interface WorkerSeat {
  /** The rank's number. */
  readonly rank: number;
  /** Number of ranks. */
  readonly worldSize: number;
  /** How long a rank waits for the others, in ms. */
  readonly timeoutMs: number;
  /** Numbers that a rank can bring to a call at once. */
  readonly capacity: number;
  /** What connects the ranks. */
  readonly link: SharedArrayBuffer | MessagePort;
}

/** The seats of a group, and what their maker can tell the ranks. */
export interface WorkerSeats {
  /** One per rank, in rank order. */
  readonly seats: readonly WorkerSeat[];
  /**
   * Tells that a rank will make no further call, because its worker ended, or failed with a cause; others that wait for
   * it, in sub-groups too, get a CollectiveError naming it at once instead of at the deadline. Over ports this may
   * overtake calls of that rank which are still on their way.
   */
  readonly leave: (rank: number, failure?: { readonly cause: unknown }) => void;
  /**
   * Closes the maker's ends of ports, which keep its thread alive: pending and later calls over them reject. Nothing to
   * do for shared memory.
   */
  readonly close: () => void;
}

/** Options of {@linkcode workerGroup}. */
export interface WorkerGroupOptions {
  /**
   * How this rank waits: `"async"`, the default, leaves its thread free for other work; `"block"` holds it up in short
   * slices, which is faster and needs shared memory and a thread that may block (not a page's own). Calls with a signal
   * are waited for without blocking, as a blocked thread would not hear it. Ranks with several groups must then make
   * their calls in one order: who blocks in one group does not bring what is still a promise to another.
   */
  readonly wait?: "async" | "block";
}

const CAPACITY = 131_136;
/** Far more than there are cores; the memory of a group grows with the square of it. */
const MOST_WORKERS = 128;
const MOST_VALUES = 2 ** 24;

/**
 * Makes the seats of a group of workers that you start yourself; `spawnWorkers` also starts them.
 *
 * @param worldSize number of ranks, >= 1
 * @param options deadline and transport
 * @returns the seats
 * @throws RangeError for an impossible number of ranks, deadline or capacity, TypeError where memory cannot be shared
 *
 * @example Handing seats to workers of one's own
 * ```ts ignore
 * import { transfers, workerSeats } from "@syncbn/syncbn/workers";
 *
 * const { seats, leave } = workerSeats(2);
 * for (const seat of seats) {
 *   const worker = new Worker(new URL("./train.ts", import.meta.url), { type: "module" });
 *   worker.onerror = ({ message }) => leave(seat.rank, { cause: message });
 *   worker.postMessage(seat, transfers(seat));
 * }
 * ```
 */
export function workerSeats(worldSize: number, options: SeatOptions = {}): WorkerSeats {
  const { timeoutMs = 60_000, transport = "auto", capacity = CAPACITY } = options;
  checkWorld(worldSize, timeoutMs);
  if (!["auto", "shared", "port"].includes(transport)) {
    throw new TypeError(
      `Cannot make the group as transport must be "auto", "shared" or "port": ` +
        `current value is ${JSON.stringify(transport)}`,
    );
  }
  if (!Number.isSafeInteger(capacity) || capacity < 1 || capacity > MOST_VALUES) {
    throw new RangeError(
      `Cannot make the group as capacity must be an integer from 1 to ${MOST_VALUES}: ` +
        `current value is ${display(capacity)}`,
    );
  }
  if (worldSize > MOST_WORKERS) {
    throw new RangeError(
      `Cannot make the group as worldSize must be at most ${MOST_WORKERS} workers: ` +
        `current value is ${worldSize}`,
    );
  }
  const shared = transport === "shared" || (transport === "auto" && canShare());
  if (transport === "shared" && !canShare()) {
    throw new TypeError(
      `Cannot make the group as threads may not share memory here: serve the page with ` +
        `Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp, ` +
        `or pass transport "port"`,
    );
  }
  const seat = (rank: number, link: WorkerSeat["link"]): WorkerSeat =>
    Object.freeze({ rank, worldSize, timeoutMs, capacity, link });
  if (shared) {
    const memory = createMemory(worldSize, capacity);
    return Object.freeze({
      seats: Object.freeze(Array.from({ length: worldSize }, (_, rank) => seat(rank, memory))),
      leave: (rank: number, failure?: { readonly cause: unknown }) =>
        leaveShared(memory, checkRank(rank, worldSize), failure),
      close: () => {},
    });
  }
  const hub = openHub(worldSize, { timeoutMs });
  return Object.freeze({
    seats: Object.freeze(hub.ports.map((port, rank) => seat(rank, port))),
    leave: (rank: number, failure?: { readonly cause: unknown }) =>
      hub.leave(checkRank(rank, worldSize), failure),
    close: hub.close,
  });
}

/**
 * Lists what must be transferred along with a seat: its port, where it has one.
 *
 * @param seat a seat
 * @returns the second argument of `postMessage(seat, ...)`
 */
export function transfers(seat: WorkerSeat): Transferable[] {
  return seat.link instanceof MessagePort ? [seat.link] : [];
}

/**
 * Takes a seat: makes this worker's handle on its group.
 *
 * Contributions are folded in rank order, by the last rank to arrive (over ports: by each rank), and every rank gets the
 * same bits. Ranks that disagree, fail, come late or are cancelled give the same CollectiveError to all; of a worker that
 * ends without a word the others learn at the deadline, or at once from the `leave` of whoever made the seats.
 *
 * @param seat what the worker was handed; each seat may be taken once
 * @param options how to wait
 * @returns the group, frozen
 * @throws TypeError where it is no seat, one that was taken before, or blocking is asked for over a port
 */
export function workerGroup(seat: WorkerSeat, options: WorkerGroupOptions = {}): ProcessGroup {
  return processGroup(takeSeat(seat, options).engine);
}

/** A taken seat. */
export interface Taken {
  readonly engine: Engine;
  readonly leave: (failure?: { readonly cause: unknown }) => void;
}

/** Takes a seat and keeps the means to leave it. */
export function takeSeat(seat: WorkerSeat, { wait = "async" }: WorkerGroupOptions): Taken {
  const { rank, worldSize, timeoutMs, capacity, link } = seat;
  if (wait !== "async" && wait !== "block") {
    throw new TypeError(
      `Cannot join the group as wait must be "async" or "block": current value is ${
        JSON.stringify(wait)
      }`,
    );
  }
  if (!(link instanceof MessagePort)) {
    checkMemory(link, rank);
    if (wait === "block" && !mayBlock()) {
      throw new TypeError(
        `Cannot join the group as wait "block" needs a thread that may be held up: this one may not, as a page's own; ` +
          `join it in a worker, or by wait "async"`,
      );
    }
    if (!claimSeat(link, rank)) throw takenBefore(rank);
    return {
      engine: sharedEngine({ buffer: link, timeoutMs, waiting: wait, cores: coreCount() }, rank),
      leave: (failure) => leaveShared(link, rank, failure),
    };
  }
  if (wait === "block") {
    throw new TypeError(
      `Cannot join the group as wait "block" needs shared memory: this seat has a port`,
    );
  }
  return portEnd(link, { rank, worldSize, timeoutMs, capacity });
}

/** Threads share memory in Deno, and on pages that are isolated from other origins. */
function canShare(): boolean {
  return sharesMemory() && typeof Atomics.waitAsync === "function";
}

function checkRank(rank: number, worldSize: number): number {
  if (Number.isInteger(rank) && rank >= 0 && rank < worldSize) return rank;
  throw new RangeError(
    `Cannot leave the group as the rank must be below ${worldSize}: current value is ${rank}`,
  );
}
