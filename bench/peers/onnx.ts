/** Just enough of ONNX to write a graph: protobuf messages with the field numbers of onnx.proto. */

/** A node: operator, inputs, outputs, attributes. Integers and lists of them, and floats as `{ float }`. */
export interface Node {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: Readonly<Record<string, number | readonly number[] | { float: number }>>;
}

/** A constant of the graph. */
export interface Constant {
  readonly name: string;
  readonly dims: readonly number[];
  readonly values: Float32Array<ArrayBuffer> | BigInt64Array<ArrayBuffer>;
}

/** A float32 tensor that goes in or comes out. */
export interface Port {
  readonly name: string;
  readonly dims: readonly number[];
}

/** A graph. */
export interface Graph {
  readonly nodes: readonly Node[];
  readonly constants: readonly Constant[];
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
}

const IR_VERSION = 8;
const OPSET = 17;
/** TensorProto.DataType */
const FLOAT = 1;
const INT64 = 7;
/** AttributeProto.AttributeType */
const ATTRIBUTE = { float: 1, int: 2, ints: 7 } as const;

/** A float attribute. */
export const float = (value: number): { float: number } => ({ float: value });

/** Writes a model. */
export function encodeModel({ nodes, constants, inputs, outputs }: Graph): Uint8Array<ArrayBuffer> {
  const graph = join(
    ...nodes.map((node) => message(1, encodeNode(node))),
    text(2, "batch_norm"),
    ...constants.map((constant) => message(5, encodeConstant(constant))),
    ...inputs.map((port) => message(11, encodePort(port))),
    ...outputs.map((port) => message(12, encodePort(port))),
  );
  const opset = join(text(1, ""), integer(2, OPSET));
  return join(integer(1, IR_VERSION), message(7, graph), message(8, opset));
}

function encodeNode({ op, inputs, outputs, attributes = {} }: Node): Uint8Array<ArrayBuffer> {
  return join(
    ...inputs.map((name) => text(1, name)),
    ...outputs.map((name) => text(2, name)),
    text(4, op),
    ...Object.entries(attributes).map(([name, value]) => {
      if (typeof value === "number") {
        return message(5, join(text(1, name), integer(3, value), integer(20, ATTRIBUTE.int)));
      }
      if ("float" in value) {
        const bytes = new Uint8Array(Float32Array.of(value.float).buffer);
        const field = join(varint(2 << 3 | 5), bytes);
        return message(5, join(text(1, name), field, integer(20, ATTRIBUTE.float)));
      }
      const list = value.map((item) => integer(8, item));
      return message(5, join(text(1, name), ...list, integer(20, ATTRIBUTE.ints)));
    }),
  );
}

function encodeConstant({ name, dims, values }: Constant): Uint8Array<ArrayBuffer> {
  return join(
    ...dims.map((extent) => integer(1, extent)),
    integer(2, values instanceof Float32Array ? FLOAT : INT64),
    text(8, name),
    message(9, new Uint8Array(values.buffer)),
  );
}

function encodePort({ name, dims }: Port): Uint8Array<ArrayBuffer> {
  const extents = dims.map((extent) => message(1, integer(1, extent)));
  const tensor = join(integer(1, FLOAT), message(2, join(...extents)));
  return join(text(1, name), message(2, message(1, tensor)));
}

function join(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const joined = new Uint8Array(parts.reduce((total, { length }) => total + length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

function varint(value: number): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push(value % 128 | 128);
  return Uint8Array.of(...bytes, value);
}

function integer(field: number, value: number): Uint8Array<ArrayBuffer> {
  return join(varint(field << 3), varint(value));
}

function message(field: number, body: Uint8Array): Uint8Array<ArrayBuffer> {
  return join(varint(field << 3 | 2), varint(body.length), body);
}

function text(field: number, value: string): Uint8Array<ArrayBuffer> {
  return message(field, new TextEncoder().encode(value));
}
