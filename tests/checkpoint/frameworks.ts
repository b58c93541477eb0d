/** Layers of Keras and Flax as tests/checkpoint/golden/frameworks.json has them. */

import type { Format } from "../../mod.ts";
import { type Convention, FLAX, KERAS, type Named } from "./conventions.ts";
import golden from "./golden/frameworks.json" with { type: "json" };

/** A layer of the golden file; vectors are under the framework's own names. */
export interface Layer {
  readonly kind: string;
  readonly shape: readonly number[];
  readonly axis: number;
  readonly momentum: number;
  readonly epsilon: number;
  readonly count: number;
  readonly fastVariance: boolean;
  readonly before: Readonly<Record<string, readonly number[]>>;
  readonly steps: readonly {
    readonly x: readonly number[];
    readonly dy: readonly number[];
    readonly after: Readonly<Record<string, readonly number[]>>;
  }[];
  readonly evaluation: { readonly x: readonly number[]; readonly y: readonly number[] };
}

/** The type that the compiler infers is a union of as many shapes as records: this is what they are. */
export const LAYERS = golden.layers as unknown as readonly Layer[];

/** Learning rate of their training. */
export const RATE = golden.rate;

/** The framework that a layer is of. */
export function conventionOf({ kind }: Layer): Convention {
  return kind.startsWith("keras") ? KERAS : FLAX;
}

/** Vectors of the file, which has shortest decimals: not quite the float32. */
export function vectorsOf(named: Readonly<Record<string, readonly number[]>>): Named {
  return Object.fromEntries(
    Object.entries(named).map(([name, values]) => [name, Float32Array.from(values)]),
  );
}

/** The values of each channel; the file has them in memory order. */
export function byChannel({ shape, axis }: Layer, values: readonly number[]): readonly number[][] {
  const at = (axis + shape.length) % shape.length;
  const inner = shape.slice(at + 1).reduce((product, extent) => product * extent, 1);
  const channels: number[][] = Array.from({ length: shape[at] }, () => []);
  values.forEach((value, i) =>
    channels[Math.trunc(i / inner) % shape[at]].push(Math.fround(value))
  );
  return channels;
}

/** A shape in memory order as a logical one. */
export function logical([batch, ...rest]: readonly number[], format: Format): readonly number[] {
  return format === "channelsFirst"
    ? [batch, ...rest]
    : [batch, ...rest.slice(-1), ...rest.slice(0, -1)];
}

/** The layer's settings as a caller would give them: its axis needs the rank unless it is 1 or -1. */
export function settingsOf({ axis, momentum, epsilon, shape }: Layer) {
  return { axis, momentum, epsilon, ...(Math.abs(axis) !== 1 && { rank: shape.length }) };
}
