/** Second order in jax-js: directions and Hessian-vector products of ranks, and jax-js's own of its formula. */

import { syncBatchNorm } from "../../lib/adapters/jax.ts";
import { type Device, initBatchNorm, runRanks } from "../../mod.ts";
import { normalArray } from "../random.ts";
import type { Arr, JaxModule } from "./load_jax.ts";

/** A batch, cut over ranks. */
export interface Case {
  readonly counts: readonly number[];
  readonly inner: readonly number[];
  readonly axis: number;
  readonly affine: boolean;
  readonly seed: number;
}

/** Of all rows, on the host: y's direction, and the Hessian's product by h and by gamma; the way back of y's direction. */
export interface Second {
  readonly ty: readonly number[];
  readonly hh: readonly number[];
  readonly hgamma: readonly number[] | null;
  /** What `hvp` says of y's direction, which `jvp` says too. */
  readonly along: readonly number[];
  /** dy * ty, and dh * th + dgamma * tgamma + dbeta * tbeta, over all rows. */
  readonly adjoint: readonly [number, number];
}

const product = (extents: readonly number[]) => extents.reduce((all, each) => all * each, 1);
const dot = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((sum, value, i) => sum + value * b[i], 0);

/** h, dy and h's direction; gamma, beta and their directions. */
function numbersOf({ counts, inner, axis, seed }: Case) {
  const all = product([counts.reduce((sum, count) => sum + count, 0), ...inner]);
  const channels = inner[axis - 1];
  return {
    rows: [0, 1, 2].map((i) => normalArray(all, seed + i, 1, 2)),
    vectors: [3, 4, 5, 6].map((i) => normalArray(channels, seed + i, 1)),
    channels,
  };
}

function arrayOf(jax: JaxModule, values: Float32Array, shape: readonly number[]): Arr {
  const options = { shape: [...shape], device: jax.defaultDevice() };
  return values.length === 0
    ? jax.numpy.zeros(options.shape, options)
    : jax.numpy.array(Float32Array.from(values), options);
}

/** By ranks in this thread. */
export async function secondOfRanks<A>(
  jax: JaxModule,
  device: Device<A>,
  task: Case,
): Promise<Second> {
  const { counts, inner, axis, affine } = task;
  const { rows, vectors, channels } = numbersOf(task);
  const each = product(inner);
  let from = 0;
  const starts = counts.map((count) => each * ((from += count) - count));
  const found = await runRanks(counts.length, async (group) => {
    const { rank } = group;
    const shape = [counts[rank], ...inner];
    const part = (values: Float32Array) =>
      arrayOf(jax, values.subarray(starts[rank], starts[rank] + product(shape)), shape);
    const [h, dy, th] = rows.map(part);
    const [gamma, beta, tgamma, tbeta] = vectors.map((values) =>
      affine ? arrayOf(jax, values, [channels]) : null
    );
    const norm = syncBatchNorm(jax, { device, group, axis });
    const state = initBatchNorm(device, channels, { affine: false });
    const { y, pullback, jvp, hvp, state: next } = await norm(h, gamma, beta, state);
    const held = (array: Arr | null) => array?.ref ?? null;
    const ty = await jvp(th.ref, held(tgamma), held(tbeta));
    const [hh, hgamma, along] = await hvp(dy.ref, th.ref, held(tgamma), held(tbeta));
    const [dh, dgamma, dbeta] = await pullback(dy.ref);
    pullback.dispose();
    device.free(...[next.runningMean, next.runningVar].flatMap((own) => own ?? []));
    y.dispose();
    const read = async (array: Arr | null) => array && [...await array.data()];
    const numbers = {
      ...{ ty: await read(ty) ?? [], hh: await read(hh) ?? [], hgamma: await read(hgamma) },
      along: await read(along) ?? [],
    };
    const pairs = [[dh, th], [dgamma, tgamma], [dbeta, tbeta]] as const;
    const [left, ...right] = await Promise.all([
      dy.data().then((own) => dot(own, numbers.ty)),
      ...pairs.map(async ([a, b]) => a && b ? dot(await a.data(), await b.data()) : 0),
    ]);
    return { ...numbers, adjoint: [left, right.reduce((sum, own) => sum + own, 0)] as const };
  });
  const sum = (of: (own: typeof found[number]) => number) =>
    found.reduce((total, own) => total + of(own), 0);
  return {
    ty: found.flatMap(({ ty }) => ty),
    hh: found.flatMap(({ hh }) => hh),
    along: found.flatMap(({ along }) => along),
    hgamma: found[0].hgamma?.map((_, c) => sum(({ hgamma }) => hgamma?.[c] ?? NaN)) ?? null,
    adjoint: [sum(({ adjoint }) => adjoint[0]), sum(({ adjoint }) => adjoint[1])],
  };
}

/** By jax-js itself, forward over its own backward, on all rows. */
export async function secondOfJax(
  jax: JaxModule,
  task: Case,
): Promise<Pick<Second, "ty" | "hh" | "hgamma">> {
  const { numpy: np } = jax;
  const { counts, inner, axis, affine } = task;
  const { rows, vectors, channels } = numbersOf(task);
  const shape = [counts.reduce((sum, count) => sum + count, 0), ...inner];
  const axes = shape.map((_, at) => at).filter((at) => at !== axis);
  const vector = shape.map((extent, at) => at === axis ? extent : 1);
  const normalize = (h: Arr, gamma: Arr, beta: Arr) => {
    const centred = h.ref.sub(np.mean(h, axes, { keepdims: true }));
    const variance = np.mean(centred.ref.mul(centred.ref), axes, { keepdims: true });
    const unit = centred.div(np.sqrt(variance.add(1e-5)));
    return unit.mul(gamma.reshape(vector)).add(beta.reshape(vector));
  };
  const array = (values: Float32Array) => arrayOf(jax, values, shape);
  const constant = (value: number) =>
    arrayOf(jax, new Float32Array(channels).fill(value), [channels]);
  const point = (i: number, otherwise: readonly [Arr, Arr]): [Arr, Arr, Arr] => {
    const own = vectors.slice(i, i + 2).map((values) => arrayOf(jax, values, [channels]));
    return [array(rows[i]), ...(affine ? own as [Arr, Arr] : otherwise)];
  };
  const points = () => point(0, [constant(1), constant(0)]);
  const directions = () => point(2, [constant(0), constant(0)]);
  const [y, ty] = jax.jvp(normalize, points(), directions());
  const dy = array(rows[1]);
  const loss = (...given: [Arr, Arr, Arr]) => np.sum(normalize(...given).mul(dy.ref));
  const gradient = jax.grad(loss, { argnums: [0, 1] });
  const [g, [hh, hgamma]] = jax.jvp(gradient, points(), directions());
  jax.tree.dispose([y, g]);
  return {
    ty: [...await ty.data()],
    hh: [...await hh.data()],
    hgamma: affine ? [...await hgamma.data()] : null,
  };
}
