/**
 * The measuring loop: rows take turns, round by round, so that a disturbance of the machine meets all of them, and each
 * gets its median over the rounds.
 *
 * `deno bench` measures one row after the other, and knows nothing of work that goes on after a call has returned, as a
 * GPU's does: tables of who is faster come from here.
 */

export interface Timed {
  /** Runs once; a promise is awaited. It may return with the work merely launched. */
  readonly run: () => unknown;
  /** Waits until everything launched is done; left out where a run has done its work when it returns. */
  readonly settle?: () => Promise<unknown>;
}

/** Milliseconds that the runs of one round take at least. */
const LEAST = 20;
/** How many times longer than an empty wait they take at least: the grain of that wait is the error. */
const FLOORS = 10;

/**
 * Measures work: k runs and one wait for them, less a wait for nothing in the same round, divided by k. Returns the median
 * over the rounds for each row, in ms.
 */
export async function workTimes(rows: readonly Timed[], rounds: number): Promise<number[]> {
  const runs: number[] = [];
  for (const row of rows) runs.push(await enough(row));
  const taken = rows.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, row] of rows.entries()) {
      taken[i].push((-await elapsed(row, 0) + await elapsed(row, runs[i])) / runs[i]);
    }
  }
  return taken.map(median);
}

/** Doubles the number of runs until it is long enough, which warms up too. */
export async function enough(row: Timed): Promise<number> {
  await elapsed(row, 1);
  const floor = await elapsed(row, 0);
  let runs = 1;
  while (await elapsed(row, runs) - floor < Math.max(LEAST, FLOORS * floor)) runs *= 2;
  return runs;
}

/** Milliseconds of so many runs and one wait. */
export async function elapsed({ run, settle }: Timed, runs: number): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < runs; i++) {
    const result = run();
    if (result instanceof Promise) await result; // Waiting costs a synchronous row a microtask.
  }
  await settle?.();
  return performance.now() - start;
}

/** The upper one of two in the middle; sorts what is given. */
export function median(times: number[]): number {
  return times.sort((a, b) => a - b)[times.length >> 1];
}
