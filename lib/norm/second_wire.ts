/** The wire of gradients of gradients, apart from the devices' own: none has an array of its format. */

import { sumsWire, type WireFormat, wireLike } from "../wire.ts";

/** Sums of gradients of gradients: [S1 C, S2 C, A C, B C, E C, F C, D C] as `SecondPass` has them, which are added. */
export const secondWire: WireFormat = /* @__PURE__ */ wireLike(sumsWire, {
  length: (channels) => 7 * channels,
});

/** The same without S1 and S2, where backward has kept those of the group: [A C, B C, E C, F C, D C]. */
export const keptSecondWire: WireFormat = /* @__PURE__ */ wireLike(sumsWire, {
  length: (channels) => 5 * channels,
});

/** Wires of gradient sums, or what stands in the place of one; what there is not is 0. */
export interface SecondSums {
  /** (S1, S2) of the rank; missing where they are not to travel, and where a weight's direction needs them neither. */
  readonly gradient?: Float64Array;
  /** (A, B). */
  readonly along: Float64Array;
  /** (., D). */
  readonly products: Float64Array;
  /** (q, .), the rank's own direction of the weight. */
  readonly weight?: Float64Array;
}

/** This rank's part of the wire: (E, F) are (S1, S2) times the weight's direction. */
export function joinSums({ gradient, along, products, weight }: SecondSums, kept: boolean) {
  const channels = along.length / 2;
  const weighted = along.map((_, i) => weight ? gradient![i] * weight[i % channels] : 0);
  const rest = [along, weighted, products.subarray(channels)];
  const parts = kept ? rest : [gradient!, ...rest];
  const wire = new Float64Array(parts.reduce((length, part) => length + part.length, 0));
  parts.reduce((at, part) => (wire.set(part, at), at + part.length), 0);
  return wire;
}

/** A wire as wires of gradient sums: (A, B), (E, F), (0, D), and (S1, S2) where they have travelled. */
export function pairsOf(wire: Float64Array, channels: number) {
  const rest = wire.subarray(wire.length - 5 * channels);
  const products = new Float64Array(2 * channels);
  products.set(rest.subarray(4 * channels), channels);
  return {
    gradient: wire.subarray(0, 2 * channels),
    along: rest.subarray(0, 2 * channels),
    weighted: rest.subarray(2 * channels, 4 * channels),
    products,
  };
}
