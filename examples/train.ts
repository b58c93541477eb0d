/**
 * One training run, as each of its replicas goes through it: k that share every batch, or one that has it whole.
 *
 * @module
 */

import { allReduceGradients, type ProcessGroup, type ReduceGroup, release, sum } from "../mod.ts";
import { share } from "./batches.ts";
import type { Digits } from "./digits.ts";
import type { Layers, Moving } from "./layers.ts";
import { firstNorms, type Model, withScales } from "./model.ts";
import { type Batch, examine, type Lesson, pick, store, study } from "./network.ts";

/**
 * Whose images a batch norm normalizes with: those of all replicas (`"sync"`), of its own replica (`"local"`), or there
 * is no batch norm (`"none"`).
 */
export type Norm = "sync" | "local" | "none";

/** What a run is made of: plain data, which can be handed to a worker. The same record gives the same run. */
export interface Task {
  /** Images of each step, over all replicas, by their numbers. */
  readonly batches: readonly (readonly number[])[];
  /** Steps that the learning rate is laid out for; with fewer batches the run stops on the way. */
  readonly planned: number;
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
}

/** Called after each step with the latest exam, to show progress. */
export type OnStep = (step: number, exam?: Exam) => void;

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
  /** Mean time of a step in ms, exams and snapshots not counted, by replica 0's clock. */
  readonly msPerStep: number;
}

/** A replica of the network, between two steps. */
export interface Replica<V, A> extends Model<V, A>, Moving<V> {}

/** What the steps of a replica share: where it computes, what it learns from, and whom it meets. */
export interface Classroom<V, A> {
  /** Where this replica computes. */
  readonly layers: Layers<V, A>;
  /** The images to learn from, there. */
  readonly training: Batch<V>;
  /** All replicas: they add up their gradients. */
  readonly group: ProcessGroup;
  /** Those whose images its batch norms normalize with. */
  readonly sharing: ReduceGroup;
}

/** The images where the layers compute; replicas on the same device can share them. */
export interface Stored<V> {
  readonly training: Batch<V>;
  readonly test: Batch<V>;
}

/** Learning rate per image of the batch (linear scaling, Goyal et al. 2017), and where it stops growing. */
const RATE_PER_IMAGE = 0.00125;
const LARGEST_RATE = 0.05;
const MOMENTUM = 0.9;

/**
 * Puts the images where layers compute, for as long as a body takes.
 *
 * @param layers where
 * @param digits the images
 * @param body what to do with them
 * @returns what the body returns
 */
export async function withStored<V, A, R>(
  layers: Layers<V, A>,
  digits: Digits,
  body: (stored: Stored<V>) => Promise<R>,
): Promise<R> {
  const stored = { training: store(digits.training, layers), test: store(digits.test, layers) };
  try {
    return await body(stored);
  } finally {
    for (const { pixels, labels } of Object.values(stored)) layers.free(pixels, labels);
  }
}

/**
 * Finds whose images the batch norms of a run normalize with; all replicas call it together.
 *
 * The law at work: local batch norm is synchronized batch norm over a group of one.
 */
export async function sharingOf(norm: Norm, group: ProcessGroup): Promise<ReduceGroup> {
  return norm === "local" ? await group.split(group.rank) : group;
}

/** Makes the replica that a run starts from. */
export function firstReplica<V, A>(
  { parameters, norm }: Task,
  layers: Layers<V, A>,
): Replica<V, A> {
  return {
    parameters: layers.upload(parameters),
    velocity: layers.upload(new Float32Array(parameters.length)),
    norms: norm === "none" ? null : firstNorms(layers.device),
  };
}

/**
 * Takes one step of stochastic gradient descent with momentum; all replicas call it together.
 *
 * Each computes with its part of the batch, all add up their gradients in one collective, and each takes the same step,
 * so that their parameters stay equal without being sent.
 *
 * @param replica what this replica is before the step; it is freed
 * @param index which batch of the task, from 0
 * @param task what the run is made of
 * @param classroom where, from what, and with whom
 * @returns what it is after the step, for the caller to discard
 */
export async function takeStep<V, A>(
  replica: Replica<V, A>,
  index: number,
  { batches, planned, perReplica }: Task,
  { layers, training, group, sharing }: Classroom<V, A>,
): Promise<Replica<V, A>> {
  const batch = batches[index];
  const pace = { rate: learningRate(batches[0].length, index / planned), momentum: MOMENTUM };
  const next = await layers.region(async (inner): Promise<Replica<V, A>> => {
    const part = pick(training, share(batch, group.rank, perReplica), inner);
    const lesson = await study(replica, part, inner, sharing);
    const total = await totalOf(lesson, inner, group);
    const mean = total.map((value) => value / batch.length);
    const moved = inner.descend(replica, mean, pace);
    return { ...moved, norms: lesson.norms && withScales(lesson.norms, moved.parameters, inner) };
  });
  discard(replica, layers, next);
  return next;
}

/** The gradients of all parameters over all replicas, in one collective; on an exact device not rounded before they are added. */
async function totalOf<V, A>(
  { gradient, sums }: Lesson<A>,
  { device }: Layers<V, A>,
  group: ProcessGroup,
): Promise<Float64Array> {
  if (sums === null) return await group.allReduce(gradient, sum, { label: "gradients" });
  const total = await allReduceGradients(sums, { device, group }, { exact: true, average: false });
  const values = await device.download(total);
  return gradient.map((ofNorms, i) => ofNorms + values[i]); // One of the two is 0.
}

/**
 * Trains one replica of the network, step by step, and judges it on the way; all replicas call it together.
 *
 * @param layers where this replica computes
 * @param stored the images, there
 * @param group this replica's handle on the group of all
 * @param task what the run is made of
 * @param onStep called on replica 0
 * @returns what was learnt, and when; without exams and snapshots on all replicas but the first
 */
export async function train<V, A>(
  layers: Layers<V, A>,
  { training, test }: Stored<V>,
  group: ProcessGroup,
  task: Task,
  onStep: OnStep = () => {},
): Promise<Run> {
  const { batches } = task;
  const classroom = { layers, training, group, sharing: await sharingOf(task.norm, group) };
  const exams: Exam[] = [];
  const snapshots = new Map<number, Float32Array>();
  let replica = firstReplica(task, layers);
  // A thread or process that starts late is not what a step costs.
  await group.barrier({ label: "start" });
  const start = performance.now();
  let examMs = 0;
  for (const index of batches.keys()) {
    replica = await takeStep(replica, index, task, classroom);

    const step = index + 1;
    if (group.rank > 0) continue;
    const began = performance.now();
    if (task.snapshots.has(step) || task.exams.has(step)) {
      const [parameters] = await layers.read(replica.parameters);
      snapshots.set(step, parameters);
    }
    if (task.exams.has(step)) {
      const result = await layers.region((inner) => examine(replica, test, inner));
      exams.push(Object.freeze({ step, ...result }));
    }
    examMs += performance.now() - began;
    onStep(step, exams.at(-1));
  }
  const msPerStep = (performance.now() - start - examMs) / batches.length;
  discard(replica, layers);
  return Object.freeze({ exams, snapshots, msPerStep });
}

/** Frees a replica, except for arrays that the next one shares. */
export function discard<V, A>(
  { parameters, velocity, norms }: Replica<V, A>,
  layers: Layers<V, A>,
  next?: Replica<V, A>,
): void {
  release(layers.device, norms, { keep: next?.norms });
  layers.free(parameters, velocity);
}

/** Falls from its first value to 0 along half a cosine (Loshchilov and Hutter 2017, without restarts). */
function learningRate(images: number, progress: number): number {
  return Math.min(RATE_PER_IMAGE * images, LARGEST_RATE) * (1 + Math.cos(Math.PI * progress)) / 2;
}
