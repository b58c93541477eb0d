/** Directions and gradients of gradients as launches: coefficients of all channels, then one walk. */

import type { Device, Directions, SumsPass } from "../../lib/device.ts";
import {
  COEFFICIENTS,
  directionKernel,
  followKernel,
  secondGradWeightKernel,
  secondKernel,
  type SourceOptions,
} from "../wgsl/directions.ts";
import type { Kernel, Parameters } from "../wgsl/kernel.ts";
import type { Tile } from "../wgsl/tiles.ts";
import {
  type Elements,
  recordBytes,
  type Slot,
  type Statistic,
  type WebGpuArray,
} from "./arrays.ts";
import { read } from "./backward.ts";
import { type Context, fill, type Operate, room } from "./context.ts";
import { alike, statistic, vector, weighing, weightsOf } from "./given.ts";
import { overChannels, walk } from "./walks.ts";

type A = WebGpuArray;

/** Operations of second order. */
export type Second = Required<Pick<Device<A>, "tangents" | "secondGradients">>;

/** Makes the operations of second order. */
export function secondOperations(operate: Operate): Second {
  const tangents: Second["tangents"] = (pass) =>
    operate((context) => {
      const { affine: { weight, eps }, directions, total, moments } = pass;
      const { input: moving, residual } = directions;
      const call = open(context, { ...pass, gradOutput: moving ?? residual ?? pass.input });
      const arrays = {
        ...call.vectors(weight, directions),
        along: call.sums(total),
        ofMean: call.vector(moments?.mean, 0),
        ofVariance: call.vector(moments?.variance, 0),
      };
      const r = moving ? alike(context, pass.input, residual) : null;
      // Where the input does not move, the residual may as well be what does, unscaled.
      const scale = { own: moving ? 1 : 0, plain: !moving && residual ? 1 : 0 };
      const [array, y] = room(context, call.contents);
      if (!call.empty) {
        call.launch(directionKernel, arrays, { eps, ...scale });
        call.follow({ u: call.tensors.gradOutput, v: null, r }, { y, z: null });
      }
      call.close();
      return array;
    });

  const secondGradients: Second["secondGradients"] = (pass) =>
    operate((context) => {
      const { input, affine: { weight, eps }, directions, along, products } = pass;
      const call = open(context, pass);
      const zero = call.vector(null, 0);
      const arrays = {
        ...call.vectors(weight, directions),
        ...{ ofMean: zero, ofVariance: zero },
        gradient: call.sums(pass.total),
        along: call.sums(along?.total),
        products: call.sums(products.total),
        weighted: call.sums(pass.weighted ?? pass.total),
      };
      const local = { along: call.sums(along?.local), products: call.sums(products.local) };
      const u = alike(context, input, directions.input);
      const r = alike(context, input, directions.residual);
      const [gradInput, z] = room(context, call.contents);
      const [gradGradOutput, y] = room(context, call.contents);
      const perChannel = { kind: "elements", length: input.shape[1], dtype: "float32" } as const;
      const zeros = () => new Float32Array(perChannel.length);
      const [gradWeight, w] = !weight
        ? [null, null]
        : call.empty
        ? [fill(context, perChannel, zeros), null]
        : room(context, perChannel);
      if (!call.empty) {
        call.launch(directionKernel, arrays, { eps, own: 1, plain: 0 });
        call.launch(secondKernel, arrays, { eps, ownWeighted: pass.weighted ? 0 : 1 });
        call.follow({ u, v: call.tensors.gradOutput, r }, { y, z });
        if (w) call.launch(secondGradWeightKernel, { ...arrays, ...local, gradWeight: w }, { eps });
      }
      call.close();
      return { gradInput, gradGradOutput, gradWeight };
    });

  return { tangents, secondGradients };
}

type Given = ReturnType<typeof read>["tensors"]["x"];

/** What the walk reads beside x, and what it writes. */
interface Moving {
  readonly u: Given;
  readonly v: Given | null;
  readonly r: Given | null;
}
interface Moved {
  readonly y: Slot<Elements>;
  readonly z: Slot<Elements> | null;
}

/** Storage buffers of the walk that has everything: x, u, v, gate, r, weights, coefficients, y and z. */
const MOST_BOUND = 9;

/** Reads what a pass has in common with those back, and gives what its launches are made of. */
function open(context: Context, pass: SumsPass<A>) {
  const { input: { shape, dtype, format } } = pass;
  const channels = shape[1];
  const { mask, gate, bounds, tensors, statistics: { source, slots } } = read(context, pass);
  const { contents } = tensors.x.slot;
  const given = weightsOf(context, pass.input, pass.weights);
  const scratch: A[] = [];
  const made = <T>([array, slot]: readonly [A, T]): T => {
    scratch.push(array);
    return slot;
  };
  const filled = <S>(array: A, look: (array: A) => S) => made([array, look(array)]);
  const record = { kind: "moments", channels, slices: COEFFICIENTS, count: NaN } as const;
  let coefs: Slot<Statistic> | undefined;
  const coefficients = () => coefs ??= made(room(context, { ...record, statistics: [] }));

  /** The vector, or as many of a number where there is none: so there are few kernels to compile. */
  const vectorOr = (array: A | null | undefined, otherwise: number): Slot<Elements> => {
    if (array) return vector(context, array, channels);
    const numbers = { kind: "elements", length: channels, dtype: "float32" } as const;
    const make = () => new Float32Array(channels).fill(otherwise);
    return filled(fill(context, numbers, make), (array) => vector(context, array, channels));
  };
  const find = (array: A) => statistic(context, array, "gradient sums", channels);
  /** Gradient sums, or zeros. */
  const sums = (array: A | null | undefined): Slot<Statistic> => {
    if (array) return find(array);
    const kind = "gradient sums";
    const none = { kind, channels, slices: 1, count: 0, statistics: [] } as const;
    return filled(fill(context, none, () => new Uint8Array(recordBytes(kind, 1) * channels)), find);
  };
  return {
    ...{ tensors, contents, sums, vector: vectorOr, empty: contents.length === 0 },
    vectors: (weight: A | null, { weight: ofWeight, bias: ofBias }: Directions<A>) => ({
      weight: vectorOr(weight, 1),
      ofWeight: vectorOr(ofWeight, 0),
      ofBias: vectorOr(ofBias, 0),
    }),
    /** Launches a kernel over all channels. */
    launch: (
      kernel: (options: SourceOptions) => Kernel,
      arrays: Readonly<Record<string, Slot>>,
      parameters: Parameters,
    ): void => {
      const all = { ...slots, ...arrays, coefs: coefficients() };
      const make: (options: Tile & { readonly source: typeof source }) => Kernel = kernel;
      overChannels(context, channels, {
        ...{ kernel: make, options: { source }, arrays: all, parameters },
      });
    },
    /** Launches the walk. Where a kernel may not bind so many buffers, r comes in another one, which writes y again. */
    follow: function follow({ u, v, r }: Moving, { y, z }: Moved, weights = given): void {
      const most = weights && v && r && (mask || tensors.output) ? MOST_BOUND : 0;
      if (most > context.limits.storageBuffers) {
        follow({ u, v, r: null }, { y, z });
        return follow({ u, v: null, r }, { y, z: null }, null);
      }
      const walked = {
        ...{ x: tensors.x, u, v, output: tensors.output, r },
        ...{ y: { slot: y, format }, z: z && { slot: z, format } },
      };
      const beside = { coefs: coefficients() };
      const over = walk(context, { shape, tensors: walked, beside, weights });
      over.launch({
        kernel: followKernel,
        options: { ...gate, ...weighing(weights), dtype, second: z !== null, added: r !== null },
        ...{ arrays: beside, mask, slices: over.slices(1), parameters: { ...bounds } },
      });
    },
    /** Gives back what is nobody's after the operation. */
    close: () => context.arrays.free(...scratch),
  };
}
