/** Just enough of ONNX to write a graph: protobuf messages with the field numbers of onnx.proto. */

/** A node: operator, inputs, outputs, attributes. Integers and lists of them, and floats as `{ float }`. */
export interface Node {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: Readonly<Record<string, number | readonly number[] | { float: number }>>;
}

/** A float32 tensor that goes in or comes out. */
export interface Port {
  readonly name: string;
  readonly dims: readonly number[];
}

type Numbers = Float32Array<ArrayBuffer> | BigInt64Array<ArrayBuffer>;

export interface Graph {
  readonly nodes: readonly Node[];
  readonly constants: Readonly<Record<string, Numbers>>;
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
}

export function lengthOf(dims: readonly number[]): number {
  return dims.reduce((product, extent) => product * extent, 1);
}

const IR_VERSION = 8;
const OPSET = 17;
/** TensorProto.DataType */
const FLOAT = 1;
const INT64 = 7;
/** AttributeProto.AttributeType */
const ATTRIBUTE = { float: 1, int: 2, ints: 7 } as const;

/** A message: values by field number, ascending. Integers are varints, lists repeat their field. */
type Message = { readonly [field: number]: Value };
type Value = number | string | { readonly float: number } | Uint8Array | readonly Value[];

/** Writes a model: the bytes of a ModelProto. */
export function encodeModel({ nodes, constants, inputs, outputs }: Graph): Uint8Array<ArrayBuffer> {
  const graph = encode({
    ...{
      1: nodes.map(encodeNode),
      2: "batch_norm",
      5: Object.entries(constants).map(encodeConstant),
    },
    ...{ 11: inputs.map(encodePort), 12: outputs.map(encodePort) },
  });
  return encode({ 1: IR_VERSION, 7: graph, 8: encode({ 1: "", 2: OPSET }) });
}

function encodeNode({ op, inputs, outputs, attributes = {} }: Node): Uint8Array {
  const encoded = Object.entries(attributes).map(([name, value]) => {
    if (typeof value === "number") return encode({ 1: name, 3: value, 20: ATTRIBUTE.int });
    if ("float" in value) return encode({ 1: name, 2: value, 20: ATTRIBUTE.float });
    return encode({ 1: name, 8: value, 20: ATTRIBUTE.ints });
  });
  return encode({ 1: inputs, 2: outputs, 4: op, 5: encoded });
}

function encodeConstant([name, values]: readonly [string, Numbers]): Uint8Array {
  const type = values instanceof Float32Array ? FLOAT : INT64;
  return encode({ 1: [values.length], 2: type, 8: name, 9: new Uint8Array(values.buffer) });
}

function encodePort({ name, dims }: Port): Uint8Array {
  const shape = encode({ 1: dims.map((extent) => encode({ 1: extent })) });
  return encode({ 1: name, 2: encode({ 1: encode({ 1: FLOAT, 2: shape }) }) });
}

function encode(message: Message): Uint8Array<ArrayBuffer> {
  return join(
    ...Object.entries(message).flatMap(([field, value]) =>
      [value].flat(1).map((one) => encodeField(Number(field), one))
    ),
  );
}

function encodeField(field: number, value: Value): Uint8Array {
  if (typeof value === "number") return join(varint(field << 3), varint(value));
  if (typeof value === "object" && "float" in value) {
    return join(varint(field << 3 | 5), new Uint8Array(Float32Array.of(value.float).buffer));
  }
  const body = typeof value === "string" ? new TextEncoder().encode(value) : value as Uint8Array;
  return join(varint(field << 3 | 2), varint(body.length), body);
}

function join(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push(value % 128 | 128);
  return Uint8Array.of(...bytes, value);
}
