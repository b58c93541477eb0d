/**
 * How gradients of gradients are computed, once a call is checked: sums of this rank, over the group, and the pass that ends it.
 *
 * No kernel reduces for it: (A, B) are gradient sums of gradInput's direction, and D one about 0 with gradOutput in the place of
 * the input. Weights of examples take part in (A, B) alone, as they do in no sum of backward.
 */

import type { Device, SecondPass, SumsPass } from "../device.ts";
import { compose } from "../ownership.ts";
import { type Tensor, tensorLike } from "../tensor.ts";
import { sumsWire } from "../wire.ts";
import type { KeptSums } from "./backward.ts";
import { readTogether, sumsAlong, vectorAsSums } from "./directions.ts";
import { joinSums, pairsOf, type SecondSums } from "./second_wire.ts";
import type { Read } from "./steps.ts";
import { type Weights, withWeights } from "./weights.ts";

/** Gradients of a loss by what a backward pass was made of. That of the weight is of this rank's part of the batch alone. */
export interface BackwardBackward<A> {
  /** Gradient of the input, in its shape, dtype and format. */
  readonly gradInput: Tensor<A>;
  /** Gradient of gradOutput, in the input's shape, dtype and format. */
  readonly gradGradOutput: Tensor<A>;
  /** Gradient of the weight, shape (C), float32; zeros for an empty batch; null where there was no weight. */
  readonly gradWeight: A | null;
}

/** A call whose arguments are checked, as the device takes them. */
export interface SecondCall<A>
  extends Omit<SumsPass<A>, "weights">, Pick<SecondPass<A>, "affine" | "directions"> {
  /** Weights of the examples, where there were some. */
  readonly counted?: Weights<A>;
  /** (S1, S2), where backward has kept them. */
  readonly kept?: KeptSums<A>;
}

/** The sums of a checked call as a wire, and what is made of all ranks' wires. */
export function launchSecond<A>(
  device: Device<A>,
  call: SecondCall<A>,
  read: Read<A>,
): {
  readonly wire: ReturnType<Read<A>>;
  readonly conclude: (total: Float64Array) => BackwardBackward<A>;
} {
  const { kept } = call;
  const { sums, wire } = compose(device, (d) => {
    const sums = sumsOf(d, call);
    return { sums, wire: wireOf(d, sums, call, read) };
  });
  const conclude = (total: Float64Array) =>
    compose(device, (d) => {
      const { gradient, along, weighted, products } = pairsOf(total, call.input.shape[1]);
      const whole = (pair: Float64Array) => d.fromWire(sumsWire, pair);
      return secondOf(d, call, {
        total: kept?.total ?? whole(gradient),
        along: { local: sums.along, total: whole(along) },
        products: { local: sums.products, total: whole(products) },
        weighted: whole(weighted),
      });
    });
  return { wire, conclude };
}

/** The same of this rank alone. */
export function secondAlone<A>(device: Device<A>, call: SecondCall<A>): BackwardBackward<A> {
  const scratch: A[] = [];
  const result = compose(device, (d) => secondAmong(d, call, scratch));
  device.free(...scratch);
  return result;
}

/** The same in a batch of launches; what is to be freed behind it is put among `scratch`. */
export function secondAmong<A>(
  device: Device<A>,
  call: SecondCall<A>,
  scratch: A[],
): BackwardBackward<A> {
  const { gradient, along, products } = sumsOf(device, call);
  scratch.push(along, products, ...(call.kept ? [] : [gradient]));
  return secondOf(device, call, {
    ...{ total: gradient, weighted: null },
    along: { local: along, total: along },
    products: { local: products, total: products },
  });
}

/** Two or three reductions: of (x, a) and (dy, a), and of (x, dy) unless it was kept. */
function sumsOf<A>(device: Device<A>, call: SecondCall<A>) {
  const { input, gradOutput, statistics, output, kept } = call;
  return {
    gradient: kept?.local ?? device.gradientSums({ input, gradOutput, statistics, output }),
    along: sumsAlong(device, call),
    products: productsOf(device, call),
  };
}

/** Sums of (a, a*dy), of dy behind its gate: a deviation from 0 is the value itself. */
export function productsOf<A>(
  device: Device<A>,
  { input, gradOutput, output, directions }: SecondCall<A>,
): A {
  const zero = device.upload(new Float32Array(input.shape[1]));
  const statistics = { source: "running", mean: zero, variance: zero } as const;
  const pass = { input: gradOutput, gradOutput: directions.input, statistics, output };
  const products = device.gradientSums(pass);
  device.free(zero);
  return products;
}

/** This rank's part of the wire. */
function wireOf<A>(
  device: Device<A>,
  sums: ReturnType<typeof sumsOf<A>>,
  { directions: { weight }, kept }: SecondCall<A>,
  read: Read<A>,
): Float64Array | Promise<Float64Array> {
  const arrays: { -readonly [Name in keyof SecondSums]?: A } = {
    along: sums.along,
    products: sums.products,
  };
  if (!kept || weight !== null) arrays.gradient = sums.gradient;
  if (weight !== null) arrays.weight = vectorAsSums(device, weight);
  const reads = Object.values(arrays).map((array) => read(device, array));
  return readTogether(reads, (wires) => {
    const named = Object.fromEntries(Object.keys(arrays).map((name, i) => [name, wires[i]]));
    return joinSums(named as unknown as SecondSums, kept !== undefined);
  });
}

/** Runs the pass that ends it, and gives its arrays the meaning of tensors. */
export function secondOf<A>(
  device: Device<A>,
  { counted = {}, kept: _, ...call }: SecondCall<A>,
  sums: Pick<SecondPass<A>, "total" | "along" | "products" | "weighted">,
): BackwardBackward<A> {
  const { input } = call;
  const { gradInput, gradGradOutput, gradWeight } = withWeights(
    device,
    input,
    counted,
    (weights) => device.secondGradients!({ ...call, ...sums, weights }),
  );
  return Object.freeze({
    gradInput: tensorLike(input, gradInput),
    gradGradOutput: tensorLike(input, gradGradOutput),
    gradWeight,
  });
}
