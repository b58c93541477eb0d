/**
 * One training step of all ranks: tfjs's own step on this rank's rows, whose loss is weighted by their share, whose gradients
 * are reduced in one collective and whose metrics in another.
 *
 * A mean over all rows is the sum over ranks of share * mean, for the loss, its gradients, metrics, and penalties of
 * regularisers too, whose shares add up to one. A rank without rows goes through its layers with a row of zeros that counts
 * nowhere, since not every kernel of tfjs bears an empty tensor: it brings zeros to each collective.
 *
 * @module
 */

import { sum } from "../../moments.ts";
import { checkWire } from "../../wire.ts";
import { joined } from "../joined.ts";
import { reduced } from "./reduce.ts";
import type { Presence } from "./synced_layer.ts";
import type { TensorFlow, TfTensor } from "./framework.ts";
import type { BatchFunction, LayersModel, Optimizer, Variable } from "./model.ts";
import type { ReplicaGroup } from "./weights.ts";

/** One rank's replica of a model. */
export interface Replica {
  readonly tf: TensorFlow;
  readonly model: LayersModel;
  readonly group: ReplicaGroup;
  /** Of its batch norms. */
  readonly presences: readonly Presence[];
}

/** A batch as tfjs's step takes it: inputs, targets, weights of rows. */
export type BatchData = readonly (TfTensor | null)[];

/** What came of a step. */
export interface StepResult {
  /** Loss and metrics over all ranks' rows. */
  readonly values: TfTensor[];
  /** Rows of all ranks. */
  readonly rows: number;
}

const ACTION = "train the model";

/** Does a step on a batch whose rows count, or on one that gives the shapes alone. */
export function step(
  replica: Replica,
  train: BatchFunction,
  data: BatchData,
  counted: boolean,
): StepResult {
  const { tf, model, group, presences } = replica;
  const own = counted ? data[0]?.shape[0] ?? 0 : 0;
  const [rows] = reduced(group, () => Float64Array.of(own), sum, "tfjs step");
  // Where nobody has rows nothing is learnt.
  if (rows === 0) return { values: model.metricsNames.map(() => tf.tensor([0], [])), rows };
  const standIn = own === 0 ? data.map((tensor) => tensor && rowOfZeros(tf, tensor)) : null;
  for (const presence of presences) presence.counted = standIn === null;
  try {
    const share = own / rows;
    const [loss, ...metrics] = withComputeGradients(
      model.optimizer,
      (compute) => reducedGradients(replica, compute, share),
      () => train(standIn ?? data),
    );
    return { values: [loss, ...reducedMetrics(replica, metrics, share)], rows };
  } finally {
    for (const presence of presences) presence.counted = true;
    if (standIn) tf.dispose(standIn.filter((tensor) => tensor !== null));
  }
}

function rowOfZeros(tf: TensorFlow, { shape, dtype }: TfTensor): TfTensor {
  return tf.zeros([1, ...shape.slice(1)], dtype);
}

type ComputeGradients = Optimizer["computeGradients"];

/** Has an optimiser compute its gradients otherwise while a body runs. */
function withComputeGradients<R>(
  optimizer: Optimizer,
  make: (own: ComputeGradients) => ComputeGradients,
  body: () => R,
): R {
  const before = Object.getOwnPropertyDescriptor(optimizer, "computeGradients");
  optimizer.computeGradients = make(optimizer.computeGradients.bind(optimizer));
  try {
    return body();
  } finally {
    if (before) Object.defineProperty(optimizer, "computeGradients", before);
    else delete (optimizer as Partial<Optimizer>).computeGradients;
  }
}

/** Loss and gradients over all ranks' rows, in one packed collective, with the same bits everywhere. */
function reducedGradients(
  { tf, group }: Replica,
  compute: ComputeGradients,
  share: number,
): ComputeGradients {
  return (loss, variables = []) => {
    const weighted = () => share === 1 ? loss() : tf.mul(loss(), share);
    const { value, grads } = compute(weighted, variables);
    const named = variables.filter(({ name }: Variable) => grads[name]);
    const parts = [value, ...named.map(({ name }) => grads[name] as TfTensor)];
    const length = parts.reduce((total, { size }) => total + size, 0);
    const local = () => {
      const all = new Float64Array(length);
      return share === 0 ? all : joined(all, parts.map((part) => part.dataSync()));
    };
    const total = reduced(group, local, sum, "tfjs gradients");
    checkWire(total, length, ACTION);
    let at = 0;
    const sums = parts.map(({ shape, size }) =>
      tf.tensor(Float32Array.from(total.subarray(at, at += size)), shape)
    );
    tf.dispose(parts);
    const reducedByName = named.map(({ name }, i) => [name, sums[i + 1]] as const);
    return { value: sums[0], grads: { ...grads, ...Object.fromEntries(reducedByName) } };
  };
}

/** Metrics over all ranks' rows: means over rows, as Keras's are. */
function reducedMetrics(
  { tf, group }: Replica,
  metrics: readonly TfTensor[],
  share: number,
): readonly TfTensor[] {
  if (metrics.length === 0) return [];
  const local = () =>
    Float64Array.from(metrics, (metric) => share === 0 ? 0 : share * metric.dataSync()[0]);
  const total = reduced(group, local, sum, "tfjs metrics");
  checkWire(total, metrics.length, ACTION);
  tf.dispose(metrics);
  return [...total].map((value) => tf.tensor([value], []));
}
