/**
 * The loop: everybody takes a turn, round by round, so that a disturbance of the machine meets all of them, and gets the
 * median over the rounds. Whoever computes something else than batch normalization is not timed.
 */

import { type BatchShape, elementsOf, numbersOf } from "../batches.ts";
import { assertRight, type Errors, errorsOf } from "../errors.ts";
import { median } from "../measure.ts";
import { FAR, NEAR } from "./cases.ts";
import type { Absent, Contender, Opened, Subject, Whose, Work } from "./subject.ts";

export interface Row extends Whose {
  readonly work: Work;
  /** Milliseconds per call over the rounds. */
  readonly median: number;
  readonly fastest: number;
}

export interface Checked extends Whose {
  readonly errors: Errors;
}

export interface Measurement {
  readonly shape: BatchShape;
  readonly rows: readonly Row[];
  readonly checks: readonly Checked[];
  readonly absent: readonly Absent[];
}

export interface Effort {
  readonly rounds: number;
  /** Milliseconds that a turn takes at least: calls are repeated. */
  readonly turn: number;
  /** Milliseconds that every kind of work is warmed up. */
  readonly warmUp: number;
}

/** Bytes of a tensor from which only one subject's batch is in memory at a time, put there anew for every turn. */
const LARGE = 2 ** 28;
/** Milliseconds of a call from which only every third round is taken part in. */
const SLOW = 400;
/** Milliseconds between turns: time for the threads of whoever was last to stop spinning. */
const PAUSE = 10;
/** Distance from float64 that no rounding explains, for values about 1. */
const WRONG = 1e-2;

interface Entry {
  calls: number;
  readonly samples: number[];
}

/** Does something with somebody, who is absent from then on where it fails, and skipped. */
type Attempt = (who: Whose, body: () => Promise<unknown>) => Promise<void>;

/** Measures one batch: medians, errors, and who was absent. */
export async function measureCase(
  subjects: readonly Subject[],
  shape: BatchShape,
  effort: Effort,
): Promise<Measurement> {
  const absent: Absent[] = [];
  const isAbsent = (who: Whose) =>
    absent.some(({ name, threads }) => name === who.name && threads === who.threads);
  const attempt: Attempt = async (who, body) => {
    if (isAbsent(who)) return;
    try {
      await body();
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const missing = message.split("\n")[0].replace(/\.$/, "");
      absent.push({ name: who.name, threads: who.threads, missing });
    }
  };
  const checks = await measureErrors(subjects, shape, attempt);
  const rows = await measureTimes(subjects, shape, effort, attempt);
  return { shape, rows: rows.filter((row) => !isAbsent(row)), checks, absent };
}

async function measureErrors(
  subjects: readonly Subject[],
  shape: BatchShape,
  attempt: Attempt,
): Promise<Checked[]> {
  const numbers = numbersOf(shape, { mean: FAR });
  const checks: Checked[] = [];
  for (const subject of subjects) {
    await attempt(subject, async () => {
      await using opened = await subject.open(shape, numbers);
      for (const { name, threads, results } of opened.contenders) {
        if (!results) continue;
        await attempt(
          { name, threads },
          async () =>
            checks.push({ name, threads, errors: errorsOf(shape, numbers, await results()) }),
        );
      }
    });
  }
  return checks;
}

/** Checks everybody once more, on data that nobody finds hard, and times them. */
async function measureTimes(
  subjects: readonly Subject[],
  shape: BatchShape,
  { rounds, turn, warmUp }: Effort,
  attempt: Attempt,
): Promise<Row[]> {
  const large = elementsOf(shape) * Float32Array.BYTES_PER_ELEMENT >= LARGE;
  const numbers = numbersOf(shape, { mean: NEAR });
  const entries = new Map<string, Entry>();
  const kept = new Map<Subject, Opened>();
  await using stack = new AsyncDisposableStack();

  const first = async (contender: Contender): Promise<void> => {
    const { works, time, results } = contender;
    if (results) assertRight(errorsOf(shape, numbers, await results()), WRONG);
    for (const work of works) {
      entries.set(keyOf(contender, work), {
        calls: large ? 1 : await enough((calls) => time(work, calls), turn, warmUp),
        samples: [],
      });
    }
  };
  const take = async (contender: Contender, round: number): Promise<void> => {
    for (const work of contender.works) {
      const entry = entries.get(keyOf(contender, work));
      if (!entry || round % 3 > 0 && Math.min(...entry.samples) > SLOW) continue;
      const { calls, samples } = entry;
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
      await contender.time(work, 1); // Caches hold what the one before left in them.
      samples.push(await contender.time(work, calls) / calls);
    }
  };
  const openOnce = async (subject: Subject): Promise<Opened> => {
    const opened = kept.get(subject) ?? stack.use(await subject.open(shape, numbers));
    kept.set(subject, opened);
    return opened;
  };

  for (let round = 0; round < rounds; round++) {
    const ends = subjects.length > 0 ? round % subjects.length : 0;
    for (const subject of [...subjects.slice(ends), ...subjects.slice(0, ends)]) {
      await attempt(subject, async () => {
        const opened = large ? await subject.open(shape, numbers) : await openOnce(subject);
        for (const contender of opened.contenders) {
          await attempt(contender, async () => {
            if (round === 0) await first(contender);
            await take(contender, round);
          });
        }
        if (large) await opened[Symbol.asyncDispose]();
      });
    }
  }
  return [...entries].filter(([, { samples }]) => samples.length > 0).map(([key, { samples }]) => {
    const [name, threads, work] = JSON.parse(key);
    return { name, threads, work, median: median(samples), fastest: samples[0] };
  });
}

function keyOf({ name, threads }: Contender, work: Work): string {
  return JSON.stringify([name, threads, work]);
}

/** Doubles the calls until a turn is long enough, and goes on until everything is warm. */
async function enough(
  time: (calls: number) => Promise<number>,
  turn: number,
  warmUp: number,
): Promise<number> {
  let [calls, spent, last] = [1, 0, 0];
  for (;;) {
    last = await time(calls);
    spent += last;
    if (last < turn) calls *= 2;
    else if (spent >= warmUp) return calls;
  }
}
