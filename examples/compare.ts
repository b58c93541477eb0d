/**
 * The demonstration: the same network learns the same images five times, and every run is held against the first.
 *
 * @module
 */

import { drawBatches, seeded } from "./batches.ts";
import { firstParameters } from "./model.ts";
import type { Runner } from "./runners.ts";
import type { Exam, Norm, Task } from "./train.ts";

/** What can be chosen. */
export interface CompareOptions {
  /** Number of replicas. */
  readonly replicas: number;
  /** Images per replica and step. */
  readonly batch: number;
  /** How often every image is seen. */
  readonly epochs: number;
  /** Steps after which each run is stopped, wherever it is then. */
  readonly stopAfter: number;
  /** Where first parameters and shuffles come from. */
  readonly seed: number;
}

/** How the five runs are called. */
export type Name = "one" | "control" | "sync" | "local" | "none";

/** How far the parameters are from those of one process after some step. */
export interface Distance {
  readonly step: number;
  /** Largest |a - b| over all parameters. */
  readonly largest: number;
}

/** One run, held against the first. */
export interface Result {
  readonly name: Name;
  /** What it is, for people. */
  readonly title: string;
  /** What it had learnt, step by step; empty where the run is impossible. */
  readonly exams: readonly Exam[];
  /** How far it went from one process, step by step. */
  readonly distances: readonly Distance[];
  /** Mean time of a step of all replicas in ms. */
  readonly msPerStep: number;
  /** What the bits of its parameters come to, at all steps after which they were kept; missing where the run is impossible. */
  readonly digest?: string;
}

/** How to train. */
export interface Runners {
  /** The runs of one process. */
  readonly one: Runner;
  /** Those of the replicas. */
  readonly replicas: Runner;
}

/** One run, before it is performed. */
export interface PlannedRun {
  /** What it is, for people. */
  readonly title: string;
  /** Who performs it. */
  readonly by: keyof Runners;
  /** What it is made of; null where it is impossible. */
  readonly task: Task | null;
}

/** All runs, before they are performed. The same options give the same plan. */
export interface Plan extends CompareOptions {
  /** Number of steps of each run. */
  readonly steps: number;
  /** What it would have been without a stop. */
  readonly planned: number;
  /** The five runs, in their order. */
  readonly runs: Readonly<Record<Name, PlannedRun>>;
}

/** All runs. */
export interface Comparison extends CompareOptions {
  /** Number of steps of each run. */
  readonly steps: number;
  /** What it would have been without a stop. */
  readonly planned: number;
  /** The five runs, that of one process first. */
  readonly results: Readonly<Record<Name, Result>>;
}

/** Where the demonstration stands. */
export interface Progress {
  readonly title: string;
  /** Which run of how many. */
  readonly run: number;
  readonly runs: number;
  readonly step: number;
  readonly steps: number;
  /** What this run had learnt when it was last examined; missing at its end where it is impossible. */
  readonly exam?: Exam;
}

/** Steps within which syncbn is held against one process step by step. */
export const FIRST_STEPS = 50;
const EXAMS = 24;
const SNAPSHOTS = 60;

/**
 * Plans to train the network five times: in one process with the whole batch; the same with the rows of each batch
 * reversed, as a yardstick for what rounding alone does; on replicas with syncbn; on replicas with local batch norm; on
 * replicas without a norm.
 *
 * @param images number of images to learn from
 * @param options what can be chosen
 * @returns the runs
 */
export function planRuns(images: number, options: CompareOptions): Plan {
  const { replicas, batch, epochs, stopAfter, seed } = options;
  const random = seeded(seed);
  const parameters = firstParameters(random.unit);
  const size = replicas * batch;
  const all = drawBatches(images, size, epochs, random);
  const [batches, planned] = [all.slice(0, stopAfter), all.length];
  const steps = batches.length;
  const exams = new Set(evenly(EXAMS, steps));
  const snapshots = new Set([...first(FIRST_STEPS, steps), ...evenly(SNAPSHOTS, steps)]);
  const common = { batches, parameters, exams, snapshots, planned };

  const whole: Task = { ...common, replicas: 1, perReplica: size, norm: "sync" };
  const reversed = batches.map((numbers) => numbers.toReversed());
  const shared = (norm: Norm): Task => ({ ...common, replicas, perReplica: batch, norm });
  const planRun = (title: string, by: keyof Runners, task: Task | null): PlannedRun =>
    Object.freeze({ title, by, task });
  const shape = `${replicas} x ${batch}`;
  const runs = {
    one: planRun(`one process, batch ${size}`, "one", whole),
    control: planRun("one process, rows reversed", "one", { ...whole, batches: reversed }),
    sync: planRun(`syncbn, ${shape}`, "replicas", shared("sync")),
    // One value per channel has no variance: what local batch norm cannot do is left out, not worked around.
    local: planRun(
      `local batch norm, ${shape}`,
      "replicas",
      batch === 1 ? null : shared("local"),
    ),
    none: planRun(`no norm, ${shape}`, "replicas", shared("none")),
  };
  return Object.freeze({ ...options, steps, planned, runs: Object.freeze(runs) });
}

/**
 * Performs all runs of a plan, and holds each against the first.
 *
 * @param runners how to train
 * @param plan the runs
 * @param onProgress called after each step
 * @returns what came of each run
 */
export async function compare(
  runners: Runners,
  { runs, ...options }: Plan,
  onProgress: (progress: Progress) => void = () => {},
): Promise<Comparison> {
  const names = Object.keys(runs);
  let reference: ReadonlyMap<number, Float32Array> | undefined;
  const perform = async (name: Name): Promise<Result> => {
    const { title, by, task } = runs[name];
    const show = (step: number, exam?: Exam): void =>
      onProgress({
        ...{ title, step, exam, steps: options.steps },
        ...{ run: names.indexOf(name) + 1, runs: names.length },
      });
    if (task === null) {
      show(options.steps);
      return { name, title, exams: [], distances: [], msPerStep: NaN };
    }
    const { snapshots, ...result } = await runners[by](task, show);
    reference ??= snapshots;
    const digest = await digestOf([...snapshots.values()]);
    return Object.freeze({
      name,
      title,
      digest,
      distances: distances(snapshots, reference),
      ...result,
    });
  };

  // One after the other, so that each has the machine to itself while it is timed.
  const results = {
    one: await perform("one"),
    control: await perform("control"),
    sync: await perform("sync"),
    local: await perform("local"),
    none: await perform("none"),
  };
  return Object.freeze({ ...options, results: Object.freeze(results) });
}

/** The first 64 bits of SHA-256 of some vectors, as they lie in memory. */
export async function digestOf(vectors: readonly Float32Array[]): Promise<string> {
  const all = Float32Array.from(vectors.flatMap((vector) => [...vector]));
  const hash = await crypto.subtle.digest("SHA-256", all);
  return Array.from(new Uint8Array(hash, 0, 8), (byte) => byte.toString(16).padStart(2, "0")).join(
    "",
  );
}

function distances(
  run: ReadonlyMap<number, Float32Array>,
  reference: ReadonlyMap<number, Float32Array>,
): readonly Distance[] {
  return [...run].map(([step, parameters]) => {
    const other = reference.get(step);
    if (other === undefined) {
      throw new RangeError(
        `Cannot compare the runs as both must have a snapshot of step ${step}: one has none`,
      );
    }
    return { step, largest: largestDifference(parameters, other) };
  });
}

/** The largest |a - b|; NaN where there is any, so that a run that exploded never looks close. */
export function largestDifference(a: Float32Array, b: Float32Array): number {
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
}

/** The steps 1 .. count, at most `steps` of them. */
function first(count: number, steps: number): readonly number[] {
  return Array.from({ length: Math.min(count, steps) }, (_, i) => i + 1);
}

/** Up to `count` steps at equal distances, the last one among them. */
function evenly(count: number, steps: number): readonly number[] {
  return Array.from({ length: count }, (_, i) => Math.max(1, Math.round(steps * (i + 1) / count)));
}
