/** Gradients of gradients through `syncBatchNorm`: a penalty on what a backward pass returned, and its gradients. */

import { syncBatchNorm } from "../../lib/adapters/tfjs.ts";
import type { BlockingGroup } from "../../mod.ts";
import type { ReadableArray } from "../../lib/adapters/tfjs.ts";
import type { Device } from "../../mod.ts";
import { normal, type Tf } from "./tfjs_models.ts";

/** What is normalised: the rows of each rank. */
export interface Case {
  readonly counts: readonly number[];
  readonly inner: readonly number[];
  readonly axis: number;
  readonly scale: boolean;
  readonly center: boolean;
}

/** Where and by whose kernels, in order. */
export const WAYS = (["cpu", "wasm"] as const).flatMap((backend) =>
  ["TensorFlow.js", "a device"].map((kernels) => ({ backend, kernels }))
);

/** A batch norm of a given x, gamma and beta. */
export type Norm = (x: Tf, gamma: Tf | null, beta: Tf | null) => Tf;

const product = (extents: readonly number[]) => extents.reduce((all, each) => all * each, 1);

/**
 * Gradients by x, gamma and beta of |dx|^2 + u.dgamma + v.dbeta, a rank's own, where those are of the sum of w * sin(y) and
 * y^2 / 10 over its rows. Linear in what is summed over ranks, so that ranks add up to one. Of tanh, sigmoid and exp
 * TensorFlow.js 4.22 has no second derivative: its tape loses what depends on a result that is saved.
 */
export function penalized(
  tf: Tf,
  own: Norm,
  task: Case,
  rank: number | null,
): readonly Float32Array[] {
  const { counts, inner, axis, scale, center } = task;
  const [all, each] = [counts.reduce((sum, count) => sum + count, 0), product(inner)];
  const before = rank === null ? 0 : counts.slice(0, rank).reduce((sum, count) => sum + count, 0);
  const rows = rank === null ? all : counts[rank];
  const part = (seed: number, size = 1) =>
    tf.tensor(normal(all * each, seed, size, 1).slice(before * each, (before + rows) * each), [
      ...[rows, ...inner],
    ]);
  const channels = [all, ...inner].at(axis) ?? 0;
  const [gamma, beta, u, v] = [11, 12, 13, 14].map((seed) =>
    tf.tensor(normal(channels, seed, 1, 1))
  );
  const w = part(15);
  const given = [part(16, 2), ...(scale ? [gamma] : []), ...(center ? [beta] : [])];
  const norm = ([x, ...rest]: readonly Tf[]) =>
    own(x, scale ? rest[0] : null, center ? rest[scale ? 1 : 0] : null);
  const loss = (...given: Tf[]) => {
    const y = norm(given);
    return tf.sum(tf.mul(w, tf.sin(y))).add(tf.sum(tf.mul(y, y)).mul(0.1));
  };
  const penalty = (...given: Tf[]) => {
    const [dx, ...rest] = tf.grads(loss)(given);
    const [dgamma, dbeta] = [scale ? rest[0] : null, center ? rest[scale ? 1 : 0] : null];
    let sum = tf.sum(tf.mul(dx, dx));
    if (dgamma) sum = sum.add(tf.sum(tf.mul(u, dgamma)));
    return dbeta ? sum.add(tf.sum(tf.mul(v, dbeta))) : sum;
  };
  return tf.tidy(() => tf.grads(penalty)(given).map((gradient: Tf) => gradient.dataSync()));
}

/** The batch norm of ours. */
export function ours<A extends ReadableArray>(
  tf: Tf,
  axis: number,
  group: BlockingGroup,
  device?: Device<A>,
): Norm {
  return (x, gamma, beta) => syncBatchNorm(tf, x, { gamma, beta }, group, { axis, device }).y;
}
