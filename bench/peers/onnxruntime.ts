/** onnxruntime-node: its operator in training mode, and a graph of primitive ones. */

import { encodeModel, type Graph, lengthOf, type Port } from "./onnx.ts";
import { operatorBoth, operatorForward, primitiveBoth, primitiveForward } from "./onnx_graphs.ts";
import type { Packages } from "./packages.ts";
import type { Numbers } from "../batches.ts";
import { type Absent, type Library, plainLayout, startLibrary } from "./subject.ts";

/** What its rows are called, the fastest of which is held against ours. */
export const ONNX = "onnxruntime-node";

interface OrtTensor {
  readonly data: Float32Array;
  readonly dims: readonly number[];
}

type Tensors = Readonly<Record<string, OrtTensor>>;

interface Session {
  readonly run: (feeds: Tensors, fetches: Tensors) => Promise<Tensors>;
  readonly release: () => Promise<void>;
}

/** The part of its interface that is used here. */
interface Ort {
  readonly Tensor: new (type: "float32", data: Float32Array, dims: readonly number[]) => OrtTensor;
  readonly InferenceSession: {
    readonly create: (model: Uint8Array, options: object) => Promise<Session>;
  };
}

const GRAPHS = {
  "training mode": { forward: operatorForward, both: operatorBoth },
  primitives: { forward: primitiveForward, both: primitiveBoth },
} as const;

export const KINDS = Object.keys(GRAPHS) as readonly (keyof typeof GRAPHS)[];

/** Loads it. Each way and number of threads is a subject of its own: a session keeps all memory that it ever used. */
export function onnxruntime(
  packages: Packages,
  kind: keyof typeof GRAPHS,
  threads: number,
): Promise<Library | Absent> {
  return startLibrary(packages, { name: `${ONNX}, ${kind}`, threads }, () => {
    const ort = packages.load("onnxruntime-node") as Ort;
    const open: Library["open"] = async (shape, numbers) => {
      const [layout, graphs] = [plainLayout(shape), GRAPHS[kind]];
      await using stack = new AsyncDisposableStack();
      const start = async (graph: Graph) =>
        stack.use(await startSession(ort, graph, numbers, threads));
      const forward = await start(graphs.forward(layout));
      const both = await start(graphs.both(layout));
      const kept = stack.move();
      return {
        forward: forward.run,
        both: both.run,
        results: async () => {
          const { y, dx, dg, db } = await both.run();
          return { y: y.data, dx: dx.data, gradWeight: dg.data, gradBias: db.data };
        },
        dispose: () => kept.disposeAsync(),
      };
    };
    const version = `onnxruntime-node ${packages.versions["onnxruntime-node"]}`;
    return Promise.resolve({ version, open });
  });
}

/** A session whose outputs are made beforehand, which spares it a copy. */
async function startSession(
  ort: Ort,
  graph: Graph,
  { x, dy, weight, bias }: Numbers,
  threads: number,
): Promise<AsyncDisposable & { readonly run: () => Promise<Tensors> }> {
  const session = await ort.InferenceSession.create(encodeModel(graph), {
    executionProviders: ["cpu"],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    logSeverityLevel: 3,
  });
  const statistics = (value: number) => new Float32Array(weight.length).fill(value);
  const given: Record<string, Float32Array> = {
    ...{ x, dy, g: weight, b: bias },
    ...{ rm: statistics(0), rv: statistics(1) },
  };
  const tensors = (
    ports: readonly Port[],
    values: (name: string, length: number) => Float32Array,
  ) =>
    Object.fromEntries(ports.map(({ name, dims }) => [
      name,
      new ort.Tensor("float32", values(name, lengthOf(dims)), dims),
    ]));
  const feeds = tensors(graph.inputs, (name) => given[name]);
  const fetches = tensors(graph.outputs, (_, length) => new Float32Array(length));
  return {
    run: () => session.run(feeds, fetches),
    [Symbol.asyncDispose]: () => session.release(),
  };
}
