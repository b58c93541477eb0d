/**
 * One training run: k replicas that share every batch, or one process that has it whole.
 *
 * @module
 */

import {
  type Device,
  type ProcessGroup,
  type ReduceGroup,
  region,
  release,
  runRanks,
  sum,
} from "../mod.ts";
import { share } from "./batches.ts";
import { type Digits, pick } from "./digits.ts";
import { examine, firstNorms, type Model, study, upload } from "./network.ts";

/**
 * Whose images a batch norm normalizes with: those of all replicas (`"sync"`), of its own replica (`"local"`), or there
 * is no batch norm (`"none"`).
 */
export type Norm = "sync" | "local" | "none";

/** What a run is made of. The same record gives the same run. */
export interface TrainOptions {
  /** The images. */
  readonly digits: Digits;
  /** Images of each step, over all replicas, by their numbers. */
  readonly batches: readonly (readonly number[])[];
  /** The parameters to start from; they are not changed. */
  readonly parameters: Float32Array;
  /** Number of replicas. */
  readonly replicas: number;
  /** Images per replica; of the last batch of an epoch some get fewer, down to none, and one may get one more. */
  readonly perReplica: number;
  /** Whose images a batch norm normalizes with. */
  readonly norm: Norm;
  /** Steps after which the network is judged by the test images. */
  readonly exams: ReadonlySet<number>;
  /** Steps after which the parameters are kept; the exams' are kept as well. */
  readonly snapshots: ReadonlySet<number>;
  /** Called after each step with the latest exam, to show progress. */
  readonly onStep?: (step: number, exam?: Exam) => void;
}

/** What the network had learnt after some step. */
export interface Exam {
  readonly step: number;
  /** Share of the test images named rightly, 0 to 1. */
  readonly accuracy: number;
  /** Mean loss on the test images. */
  readonly loss: number;
}

/** What came of a run. */
export interface Run {
  /** In the order of their steps; the last one is at the end. */
  readonly exams: readonly Exam[];
  /** The parameters after the steps that were asked for. */
  readonly snapshots: ReadonlyMap<number, Float32Array>;
  /** Mean time of a step in ms, exams not counted. All replicas share one thread. */
  readonly msPerStep: number;
}

interface Replica<A> extends Model<A> {
  readonly velocity: Float32Array;
}

/** Learning rate per image of the batch (linear scaling, Goyal et al. 2017), and where it stops growing. */
const RATE_PER_IMAGE = 0.00125;
const LARGEST_RATE = 0.05;
const MOMENTUM = 0.9;

/**
 * Trains the network by stochastic gradient descent with momentum.
 *
 * Each replica computes with its part of the batch, all add up their gradients in one collective, and each takes the
 * same step, so that their parameters stay equal without being sent.
 *
 * @param device where the batch norms compute
 * @param options what the run is made of
 * @returns what replica 0 has learnt, and when
 */
export async function train<A>(device: Device<A>, options: TrainOptions): Promise<Run> {
  const [run] = await runRanks(options.replicas, (group) => trainReplica(device, group, options));
  return run;
}

async function trainReplica<A>(
  device: Device<A>,
  group: ProcessGroup,
  options: TrainOptions,
): Promise<Run> {
  const { digits, batches, norm } = options;
  // The law at work: local batch norm is synchronized batch norm over a group of one.
  const sharing = norm === "local" ? await group.split(group.rank) : group;
  const exams: Exam[] = [];
  const snapshots = new Map<number, Float32Array>();
  let replica: Replica<A> = {
    parameters: options.parameters,
    velocity: new Float32Array(options.parameters.length),
    norms: norm === "none" ? null : firstNorms(device),
  };
  const start = performance.now();
  let examMs = 0;
  for (const [index, batch] of batches.entries()) {
    const part = pick(digits.training, share(batch, group.rank, options.perReplica));
    const rate = learningRate(batches[0].length, index / batches.length);
    const next = await region(device, async (scope) => {
      const lesson = await study(replica, part, { device: scope, group: sharing });
      const total = await add(group, lesson);
      const [parameters, velocity] = descend(replica, total, batch.length, rate);
      const norms = lesson.norms && upload(scope, lesson.norms, parameters);
      return { parameters, velocity, norms };
    });
    release(device, replica, { keep: next });
    replica = next;

    const step = index + 1;
    if (group.rank > 0) continue;
    if (options.snapshots.has(step) || options.exams.has(step)) {
      snapshots.set(step, replica.parameters);
    }
    if (options.exams.has(step)) {
      const began = performance.now();
      const result = await region(device, (scope) => examine(replica, digits.test, scope));
      exams.push(Object.freeze({ step, ...result }));
      examMs += performance.now() - began;
    }
    options.onStep?.(step, exams.at(-1));
  }
  const msPerStep = (performance.now() - start - examMs) / batches.length;
  release(device, replica);
  return Object.freeze({ exams, snapshots, msPerStep });
}

/** Adds up the gradients of all replicas: one collective for everything. */
function add(
  group: ReduceGroup,
  lesson: { readonly gradient: Float64Array },
): Promise<Float64Array> {
  return group.allReduce(lesson.gradient, sum, { label: "gradients" });
}

function descend(
  { parameters, velocity }: Pick<Replica<unknown>, "parameters" | "velocity">,
  gradient: Float64Array,
  images: number,
  rate: number,
): [parameters: Float32Array, velocity: Float32Array] {
  const faster = velocity.map((value, i) => MOMENTUM * value + gradient[i] / images);
  return [parameters.map((value, i) => value - rate * faster[i]), faster];
}

/** Falls from its first value to 0 along half a cosine (Loshchilov and Hutter 2017, without restarts). */
function learningRate(images: number, progress: number): number {
  return Math.min(RATE_PER_IMAGE * images, LARGEST_RATE) * (1 + Math.cos(Math.PI * progress)) / 2;
}
