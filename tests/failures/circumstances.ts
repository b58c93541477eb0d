/** What may happen to all ranks at once, and to a seat: stops of the process, crowding, two who take one place. */

import {
  type SeatOptions,
  spawnWorkers,
  transfers,
  workerSeats,
} from "../../lib/groups/workers.ts";
import { hasMpi } from "../mpi_kit.ts";
import type { Count } from "../pauses/collect.ts";
import { PAUSED } from "../pauses/program.ts";
import { stopOften } from "../pauses/stop.ts";
import { startWorker, type WorkerTask } from "../worker_rank.ts";
import type { Line } from "./report.ts";
import type { Taking } from "./taker.ts";

const COLLECT = new URL("../pauses/collect.ts", import.meta.url).href;
const TAKER = new URL("./taker.ts", import.meta.url);
const CROWD = 64;
/** How long a crowd is at work, in ms. */
const CROWDED_MS = 3000;
const TRANSPORTS = { "workers": "shared", "workers over ports": "port" } as const;

/** A circumstance of an engine. */
export interface Circumstance {
  readonly subject: string;
  /** Has it happen so often. */
  readonly happen: (times: number) => Promise<Line>;
}

/** All of them, on what the machine has. */
export async function circumstances(): Promise<readonly Circumstance[]> {
  const families = ["Open MPI", "MPICH"] as const;
  const present = await Promise.all(families.map(hasMpi));
  const workers = Object.entries(TRANSPORTS);
  return [
    ...PAUSED.map((subject) => stops(subject, false)),
    ...families.filter((_, i) => present[i]).map((family) => stops(family, true)),
    ...workers.map(([subject, transport]) => seats(subject, { transport })),
    ...workers.map(([subject, transport]) => crowd(subject, { transport })),
  ];
}

function stops(subject: string, isMpi: boolean): Circumstance {
  return {
    subject,
    happen: async (times) => {
      const { stops, results, wrong, failure } = await stopOften(subject, times, isMpi);
      const isOver = failure === "" && stops === times && results > 0;
      return lineOf(subject, "stopped past the deadline", times, {
        hung: isOver ? 0 : 1,
        wrong,
        remarks: isOver ? [] : [`${stops} stops, ${results} results; ${failure}`],
      });
    },
  };
}

function seats(subject: string, options: SeatOptions): Circumstance {
  return {
    subject,
    happen: async (times) => {
      let [hung, wrong, unlike] = [0, 0, 0];
      const remarks = new Set<string>();
      for (let i = 0; i < times; i++) {
        const takings = await takeTwice(options);
        const winners = takings.filter(({ total }) => total !== null);
        const refusals = takings.flatMap(({ refusals }) => refusals);
        if (winners.length !== 2) hung++;
        if (winners.some(({ total }) => total !== 3)) wrong++;
        const asWanted = refusals.length === 2 * takings.length - 2 &&
          refusals.every((text) => /^TypeError: .* each seat may be taken once/.test(text));
        if (!asWanted) unlike++;
        if (winners.length !== 2 || !asWanted) remarks.add(JSON.stringify(takings));
      }
      return lineOf(subject, "a seat taken twice", times, {
        hung,
        wrong,
        unlike,
        remarks: [...remarks],
      });
    },
  };
}

/** Two seats and, where a seat can be handed to two, three takers; each tries twice. */
async function takeTwice(options: SeatOptions): Promise<readonly Taking[]> {
  const { seats, close } = workerSeats(2, { ...options, timeoutMs: 20_000 });
  const handed = options.transport === "shared" ? [...seats, seats[1]] : seats;
  const workers = handed.map(() => new Worker(TAKER, { type: "module" }));
  await Promise.all(workers.map(next));
  const takings = workers.map((worker) => next(worker) as Promise<Taking>);
  handed.forEach((seat, i) => workers[i].postMessage({ seat }, transfers(seat)));
  const told = await Promise.all(takings);
  workers.forEach((worker) => worker.terminate());
  close();
  return told;
}

function next(worker: Worker): Promise<unknown> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = ({ message }) => reject(new Error(message));
  });
}

function crowd(subject: string, options: SeatOptions): Circumstance {
  return {
    subject,
    happen: async (times) => {
      // A crowd is many collectives: a tenth as many starts.
      const starts = Math.ceil(times / 10);
      let [hung, wrong] = [0, 0];
      const remarks = new Set<string>();
      for (let i = 0; i < starts; i++) {
        try {
          const counts = await spawnWorkers<WorkerTask, Count>(
            () => startWorker(COLLECT),
            CROWD,
            { ...options, parameter: { name: "collect", parameter: CROWDED_MS }, capacity: 256 },
          );
          for (const count of counts) wrong += count.wrong;
        } catch (error) {
          hung++;
          remarks.add((error as Error).message);
        }
      }
      const kind = `${CROWD} ranks on ${navigator.hardwareConcurrency} cores`;
      return lineOf(subject, kind, starts, { hung, wrong, remarks: [...remarks] });
    },
  };
}

function lineOf(subject: string, kind: string, times: number, counted: Partial<Line>): Line {
  return {
    ...{ subject, kind, times, hung: 0, wrong: 0, unlike: 0, stateLost: 0, leftBehind: 0 },
    ...{ slowestMs: null, message: "", remarks: [] },
    ...counted,
  };
}
