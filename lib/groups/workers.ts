/**
 * Ranks in workers, each a thread of its own: in Deno, in browsers, wherever there are Web Workers.
 *
 * {@linkcode spawnWorkers} starts one worker per rank and waits for them; each serves its rank by
 * {@linkcode serveRank}. Who starts workers otherwise hands each a seat of {@linkcode workerSeats}, of which
 * {@linkcode workerGroup} makes the group.
 *
 * @module
 */

export {
  type SeatOptions,
  transfers,
  workerGroup,
  type WorkerGroupOptions,
  type WorkerSeat,
  type WorkerSeats,
  workerSeats,
} from "./workers/seats.ts";
export { serveRank } from "./workers/serve.ts";
export { type SpawnOptions, spawnWorkers } from "./workers/spawn.ts";
