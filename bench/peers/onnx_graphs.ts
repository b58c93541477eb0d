/**
 * Batch normalization in training as ONNX graphs. Inputs x, g and b (scale and bias), for backward dy; outputs y, dx, dg
 * and db.
 */

import { type Graph, lengthOf, type Node, type Port } from "./onnx.ts";
import { EPS, MOMENTUM } from "../batches.ts";
import type { plainLayout } from "./subject.ts";

type Layout = ReturnType<typeof plainLayout>;

const node = (
  op: string,
  inputs: string,
  outputs: string,
  attributes?: Node["attributes"],
): Node => ({ op, inputs: inputs.split(" "), outputs: outputs.split(" "), attributes });

const float = (value: number, length = 1) => new Float32Array(length).fill(value);
const integers = (values: readonly number[]) => BigInt64Array.from(values, BigInt);

/** The ports that every graph has, with scale and bias in the shape that the graph wants them. */
function ports({ dims }: Layout, vector: readonly number[], backward: boolean) {
  const port = (name: string, dims: readonly number[]): Port => ({ name, dims });
  const [x, y, dy, dx] = ["x", "y", "dy", "dx"].map((name) => port(name, dims));
  const [g, b, dg, db] = ["g", "b", "dg", "db"].map((name) => port(name, vector));
  return backward
    ? { inputs: [x, g, b, dy], outputs: [y, dx, dg, db] }
    : { inputs: [x, g, b], outputs: [y] };
}

/** Running mean and variance. As constants they would not do: the operator writes the new ones over them. */
function statistics(channels: number): Port[] {
  return ["rm", "rv"].map((name) => ({ name, dims: [channels] }));
}

/** Forward by the operator itself, which updates running statistics too. */
export function operatorForward(layout: Layout): Graph {
  const channels = lengthOf(layout.vector);
  const { inputs, outputs } = ports(layout, [channels], false);
  return {
    nodes: [node("BatchNormalization", "x g b rm rv", "y rm2 rv2", {
      epsilon: { float: EPS },
      momentum: { float: 1 - MOMENTUM }, // ONNX's is the weight of the old statistics.
      training_mode: 1,
    })],
    constants: {},
    inputs: [...inputs, ...statistics(channels)],
    outputs: [...outputs, { name: "rm2", dims: [channels] }, { name: "rv2", dims: [channels] }],
  };
}

/**
 * Forward by the operator, and backward with as few passes as there are operators for: with momentum 0 the running
 * statistics that come out are the batch's, and the operator for inference serves as x -> x * scale + offset per channel.
 */
export function operatorBoth(layout: Layout): Graph {
  const { dims, axes, vector } = layout;
  const channels = lengthOf(vector);
  const count = lengthOf(dims) / channels;
  const { inputs, outputs } = ports(layout, [channels], true);
  return {
    nodes: [
      node("BatchNormalization", "x g b rm rv", "y mean variance", {
        epsilon: { float: EPS },
        momentum: { float: 0 },
        training_mode: 1,
      }),
      node("Add", "variance eps", "shifted"),
      node("Sqrt", "shifted", "std"),
      node("Reciprocal", "std", "invstd"),
      node("Reshape", "mean vector", "meanLike"),
      node("Sub", "x meanLike", "xmu"),
      node("Mul", "dy xmu", "dyXmu"),
      node("ReduceSum", "dyXmu axes", "sumDyXmu", { keepdims: 0 }),
      node("ReduceSum", "dy axes", "db", { keepdims: 0 }),
      node("Mul", "sumDyXmu invstd", "dg"),
      node("Mul", "g invstd", "a"),
      // (x - mean) * slope + offset, where slope is -a * invstd * dg / count and offset -a * db / count.
      node("Mul", "a invstd", "aInvstd"),
      node("Mul", "aInvstd dg", "slopeCount"),
      node("Mul", "slopeCount minusInverse", "slope"),
      node("Mul", "a db", "offsetCount"),
      node("Mul", "offsetCount minusInverse", "offset"),
      // Of x - mean: of x itself it would fold the mean into the offset, which costs digits and saves nothing.
      node("BatchNormalization", "xmu slope offset zeros ones", "line", { epsilon: { float: 0 } }),
      node("Reshape", "a vector", "aLike"),
      node("Mul", "dy aLike", "scaled"),
      node("Add", "scaled line", "dx"),
    ],
    constants: {
      ...{ eps: float(EPS), minusInverse: float(-1 / count) },
      ...{ zeros: float(0, channels), ones: float(1, channels) },
      ...{ axes: integers(axes), vector: integers(vector) },
    },
    inputs: [...inputs, ...statistics(channels)],
    outputs,
  };
}

/** Mean and variance by two passes, from operators that know nothing of batch normalization. */
function normalized({ axes }: Layout): Node[] {
  return [
    node("ReduceMean", "x", "mean", { axes, keepdims: 1 }),
    node("Sub", "x mean", "xmu"),
    node("Mul", "xmu xmu", "squares"),
    node("ReduceMean", "squares", "variance", { axes, keepdims: 1 }),
    node("Add", "variance eps", "shifted"),
    node("Sqrt", "shifted", "std"),
    node("Div", "g std", "a"),
    node("Mul", "xmu a", "scaled"),
    node("Add", "scaled b", "y"),
  ];
}

export function primitiveForward(layout: Layout): Graph {
  return {
    nodes: normalized(layout),
    constants: { eps: float(EPS) },
    ...ports(layout, layout.vector, false),
  };
}

export function primitiveBoth(layout: Layout): Graph {
  const { dims, axes, vector } = layout;
  const count = lengthOf(dims) / lengthOf(vector);
  return {
    nodes: [
      ...normalized(layout),
      node("Mul", "dy xmu", "dyXmu"),
      node("ReduceSum", "dyXmu axes", "sumDyXmu", { keepdims: 1 }),
      node("ReduceSum", "dy axes", "db", { keepdims: 1 }),
      node("Div", "sumDyXmu std", "dg"),
      node("Mul", "db inverse", "meanDy"),
      node("Mul", "shifted count", "shiftedCount"),
      node("Div", "sumDyXmu shiftedCount", "slope"),
      node("Mul", "xmu slope", "line"),
      node("Sub", "dy meanDy", "centred"),
      node("Sub", "centred line", "difference"),
      node("Mul", "difference a", "dx"),
    ],
    constants: {
      ...{ eps: float(EPS), count: float(count), inverse: float(1 / count) },
      axes: integers(axes),
    },
    ...ports(layout, vector, true),
  };
}
