/**
 * Ranks in workers, each a thread of its own: web workers in Deno and browsers, those of `node:worker_threads` in Node.
 *
 * {@linkcode spawnWorkers} starts one worker per rank and waits for them; each serves its rank by
 * {@linkcode serveRank}. Who starts workers otherwise hands each a seat of {@linkcode workerSeats}, of which
 * {@linkcode workerGroup} makes the group.
 *
 * @module
 */

export type { NodeWorker, RankWorker } from "./workers/platform.ts";
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
