/** Directions and gradients of gradients on Wasm. */

import type { Rectified } from "../../lib/activation.ts";
import type {
  Device,
  Directions,
  SecondArrays,
  SecondPass,
  TangentsPass,
} from "../../lib/device.ts";
import type { Tensor } from "../../lib/tensor.ts";
import { sumsWire } from "../../lib/wire.ts";
import type { WasmArray } from "./arrays.ts";
import { type Context, elements, type Kernels, type Operate } from "./context.ts";
import { layoutOf } from "./layout.ts";
import { addressesOf, planes, prepare } from "./walks.ts";
import { weightsIn } from "./weights.ts";

/** Operations of second order. */
export type SecondOperations = Required<Pick<Device<WasmArray>, "tangents" | "secondGradients">>;

/** Makes the operations of second order. */
export function secondOperations(operate: Operate): SecondOperations {
  return {
    tangents: (pass) => operate((context) => tangents(context, pass)),
    secondGradients: (pass) => operate((context) => secondGradients(context, pass)),
  };
}

/** Float32 elements of a run that is widened at once: RUN of `assembly/directions.ts`; and those of a run of weights. */
const RUN = 1024;
const WEIGHTS = RUN + 16;
/** Planes of coefficients of a direction, and of the gradient of the input. */
const PLANES = { direction: 5, second: 4 } as const;

function tangents(context: Context, pass: TangentsPass<WasmArray>): WasmArray {
  const { input, directions, total, moments } = pass;
  const { inputs, along, own, plain } = directed(context, input, directions, pass.output);
  const channels = input.shape[1];
  const statistics = addressesOf(context, pass.statistics, channels);
  const sums = context.exact
    ? context.exact.sumsAt(context, total, channels, statistics[0])
    : context.statistic(total, sumsWire, channels);
  const [mean, variance] = [moments?.mean, moments?.variance].map((array) =>
    context.vector(array ?? null, channels)
  );
  const weight = context.vector(pass.affine.weight, channels);
  const { array, slot: { address } } = context.make(contentsOf(input));
  follow(
    context,
    input,
    [inputs.x, along, 0, inputs.gate, inputs.added],
    [address, 0],
    (kernels, to) => {
      const { directionCoefficients: write } = kernels;
      const [m, rm, rv] = statistics;
      const [q, b] = [inputs.weight, inputs.bias];
      const { eps } = pass.affine;
      write(m, rm, rv, eps, weight, sums, q, b, mean, variance, own, plain, channels, to);
    },
    weightsIn(context, input, pass.weights),
  );
  return array;
}

function secondGradients(
  context: Context,
  pass: SecondPass<WasmArray>,
): SecondArrays<WasmArray> {
  const { input, gradOutput, directions, affine: { weight, eps } } = pass;
  const channels = input.shape[1];
  const { inputs, along } = directed(context, input, directions, pass.output);
  const { dtype, format } = input;
  const like = { elements: layoutOf(input).elements, dtype };
  const dy = context.ordered(gradOutput, like, format);
  const [m, rm, rv] = addressesOf(context, pass.statistics, channels);
  const scale = context.vector(weight, channels);
  const sumsOf = (array: WasmArray | null | undefined) =>
    context.statistic(array ?? null, sumsWire, channels);
  const [gradient, ofAlong, ofProducts] = [pass.total, pass.along?.total, pass.products.total].map(
    sumsOf,
  );
  const [weighted, ownAlong, ownProducts] = [
    pass.weighted,
    pass.along?.local,
    pass.products.local,
  ].map(sumsOf);
  const gradInput = context.make(contentsOf(input));
  const moved = context.make(contentsOf(input));
  const gradWeight = weight && context.make(elements(channels, "float32"));
  const results = [moved.slot.address, gradInput.slot.address] as const;
  const { weight: q, bias: b, gate, added, x } = inputs;
  follow(context, input, [x, along, dy, gate, added], results, (kernels, to) => {
    const { directionCoefficients, secondCoefficients, secondGradWeight } = kernels;
    const second = to + planes(PLANES.direction, channels, 4);
    directionCoefficients(m, rm, rv, eps, scale, ofAlong, q, b, 0, 0, 1, 0, channels, to);
    secondCoefficients(
      ...[m, rm, rv, eps, scale, gradient, ofAlong, ofProducts, weighted, q, channels, second],
    );
    if (!gradWeight) return;
    const { slot: { address } } = gradWeight;
    secondGradWeight(m, rv, eps, gradient, ownAlong, ownProducts, channels, address);
  }, weightsIn(context, input, pass.weights));
  return {
    gradInput: gradInput.array,
    gradGradOutput: moved.array,
    gradWeight: gradWeight && gradWeight.array,
  };
}

const contentsOf = (input: Tensor<WasmArray>) => elements(layoutOf(input).elements, input.dtype);

/** Addresses of what moves. Where the input does not, the residual may as well be what does, unscaled. */
function directed(
  context: Context,
  input: Tensor<WasmArray>,
  directions: Directions<WasmArray>,
  output: Rectified<WasmArray> | undefined,
) {
  const { dtype, format, shape: [, channels] } = input;
  const like = { elements: layoutOf(input).elements, dtype };
  const x = context.tensor(input, like);
  const along = context.ordered(directions.input, like, format);
  const added = context.ordered(directions.residual, like, format);
  const inputs = {
    x,
    gate: context.gate(output, like, format),
    weight: context.vector(directions.weight, channels),
    bias: context.vector(directions.bias, channels),
    added: along ? added : 0,
  };
  if (along || like.elements === 0) return { inputs, along, own: 1, plain: 0 };
  return { inputs, along: added || x, own: 0, plain: added ? 1 : 0 };
}

function follow(
  context: Context,
  input: Tensor<WasmArray>,
  [x, u, v, gate, r]: readonly [number, number, number, number, number],
  [y, z]: readonly [number, number],
  writeCoefficients: (kernels: Kernels, perChannel: number) => void,
  weights: number,
): void {
  const layout = layoutOf(input);
  const { channels, half, laneInner: inner, period } = layout;
  const count = PLANES.direction + (z === 0 ? 0 : PLANES.second);
  const { parts, at, roomOf } = prepare(
    context,
    layout,
    count,
    half * planes(7, RUN, 4) + (weights && planes(1, WEIGHTS, 4)),
    writeCoefficients,
  );
  context.run("follow", parts, ({ from, to }, thread) => {
    const room = roomOf(thread);
    const addresses = [x, u, v, gate, r, y, z];
    return [...addresses, half, channels, inner, period, from, to, at, room, weights];
  });
}
