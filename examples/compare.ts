/**
 * The demonstration: the same network learns the same images five times, and every run is held against the first.
 *
 * @module
 */

import { drawBatches, seeded } from "./batches.ts";
import type { Digits } from "./digits.ts";
import type { Layers } from "./layers.ts";
import { firstParameters } from "./model.ts";
import { type Exam, type Norm, train } from "./train.ts";

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
  /** Mean time of a step in ms, all replicas on one thread. */
  readonly msPerStep: number;
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
 * Trains the network five times: in one process with the whole batch; the same with the rows of each batch reversed, as
 * a yardstick for what rounding alone does; on replicas with syncbn; on replicas with local batch norm; on replicas
 * without a norm.
 *
 * @param layers where everything computes
 * @param digits the images
 * @param options what can be chosen
 * @param onProgress called after each step
 * @returns what came of each run
 */
export async function compare<V, A>(
  layers: Layers<V, A>,
  digits: Digits,
  options: CompareOptions,
  onProgress: (progress: Progress) => void = () => {},
): Promise<Comparison> {
  const { replicas, batch, epochs, stopAfter, seed } = options;
  const random = seeded(seed);
  const parameters = firstParameters(random.unit);
  const size = replicas * batch;
  const all = drawBatches(digits.training.count, size, epochs, random);
  const [batches, planned] = [all.slice(0, stopAfter), all.length];
  const steps = batches.length;
  const exams = new Set(evenly(EXAMS, steps));
  const snapshots = new Set([...first(FIRST_STEPS, steps), ...evenly(SNAPSHOTS, steps)]);
  const common = { digits, parameters, exams, snapshots, planned };

  const shape = `${replicas} x ${batch}`;
  const whole = { replicas: 1, perReplica: size, batches, norm: "sync" as Norm };
  const shared = { ...whole, replicas, perReplica: batch };
  const plans = {
    one: { title: `one process, batch ${size}`, ...whole },
    control: {
      title: "one process, rows reversed",
      ...whole,
      batches: batches.map((numbers) => numbers.toReversed()),
    },
    sync: { title: `syncbn, ${shape}`, ...shared },
    local: { title: `local batch norm, ${shape}`, ...shared, norm: "local" as Norm },
    none: { title: `no norm, ${shape}`, ...shared, norm: "none" as Norm },
  };

  let reference: ReadonlyMap<number, Float32Array> | undefined;
  let run = 0;
  const runs = Object.keys(plans).length;
  const perform = async (name: Name): Promise<Result> => {
    const { title, ...plan } = plans[name];
    run++;
    // One value per channel has no variance: what local batch norm cannot do is left empty, not worked around.
    if (plan.norm === "local" && batch === 1) {
      onProgress({ title, run, runs, step: steps, steps });
      return { name, title, exams: [], distances: [], msPerStep: NaN };
    }
    const { snapshots, ...result } = await train(layers, {
      ...common,
      ...plan,
      onStep: (step, exam) => onProgress({ title, run, runs, step, steps, exam }),
    });
    reference ??= snapshots;
    return Object.freeze({ name, title, distances: distances(snapshots, reference), ...result });
  };

  // One after the other, so that each has the machine to itself while it is timed.
  const results = {
    one: await perform("one"),
    control: await perform("control"),
    sync: await perform("sync"),
    local: await perform("local"),
    none: await perform("none"),
  };
  return Object.freeze({ ...options, steps, planned, results: Object.freeze(results) });
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
    // Math.max keeps NaN, so that a run that exploded never looks close.
    const largest = parameters.reduce(
      (most, value, i) => Math.max(most, Math.abs(value - other[i])),
      0,
    );
    return { step, largest };
  });
}

/** The steps 1 .. count, at most `steps` of them. */
function first(count: number, steps: number): readonly number[] {
  return Array.from({ length: Math.min(count, steps) }, (_, i) => i + 1);
}

/** Up to `count` steps at equal distances, the last one among them. */
function evenly(count: number, steps: number): readonly number[] {
  return Array.from({ length: count }, (_, i) => Math.max(1, Math.round(steps * (i + 1) / count)));
}
