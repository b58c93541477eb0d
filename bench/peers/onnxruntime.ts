/** onnxruntime-node: its operator in training mode, and a graph of primitive ones. */

import { encodeModel, type Graph } from "./onnx.ts";
import { operatorBoth, operatorForward, primitiveBoth, primitiveForward } from "./onnx_graphs.ts";
import type { Packages } from "./packages.ts";
import type { Results } from "../errors.ts";
import type { Numbers } from "../batches.ts";
import { type Candidate, plainLayout, timeCalls, type Work } from "./subject.ts";

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

/** The ways that are measured. */
export const KINDS = Object.keys(GRAPHS) as readonly (keyof typeof GRAPHS)[];

/** Loads it. Each way and number of threads is a subject of its own: a session keeps all memory that it ever used. */
export function onnxruntimeSubject(
  packages: Packages,
  { kind, threads }: { readonly kind: keyof typeof GRAPHS; readonly threads: number },
): Candidate {
  const name = `${ONNX}, ${kind}`;
  let ort: Ort;
  try {
    ort = packages.load("onnxruntime-node") as Ort;
  } catch (error) {
    return { name, threads, missing: packages.reason(error) };
  }
  return {
    name,
    threads,
    version: `onnxruntime-node ${packages.versions["onnxruntime-node"]}`,
    open: async (shape, numbers) => {
      const layout = plainLayout(shape);
      const graphs = GRAPHS[kind];
      const stack = new AsyncDisposableStack();
      try {
        const runs = {
          forward: stack.use(await startSession(ort, graphs.forward(layout), numbers, threads)),
          both: stack.use(await startSession(ort, graphs.both(layout), numbers, threads)),
        };
        return {
          contenders: [{
            name,
            threads,
            works: ["forward", "both"],
            time: (work: Work, calls: number) =>
              timeCalls(runs[work as keyof typeof runs].run, calls),
            results: () => runs.both.results(),
          }],
          [Symbol.asyncDispose]: () => stack.disposeAsync(),
        };
      } catch (error) {
        await stack.disposeAsync();
        throw error;
      }
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

interface Running extends AsyncDisposable {
  readonly run: () => Promise<unknown>;
  readonly results: () => Promise<Required<Results>>;
}

/** A session whose outputs are made beforehand, which spares it a copy. */
async function startSession(
  ort: Ort,
  graph: Graph,
  { x, dy, weight, bias }: Numbers,
  threads: number,
): Promise<Running> {
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
  const feeds = Object.fromEntries(
    graph.inputs.map(({ name, dims }) => [name, new ort.Tensor("float32", given[name], dims)]),
  );
  const fetches = Object.fromEntries(graph.outputs.map(({ name, dims }) => {
    const length = dims.reduce((product, extent) => product * extent, 1);
    return [name, new ort.Tensor("float32", new Float32Array(length), dims)];
  }));
  return {
    run: () => session.run(feeds, fetches),
    results: async () => {
      const { y, dx, dg, db } = await session.run(feeds, fetches);
      return { y: y.data, dx: dx.data, gradWeight: dg.data, gradBias: db.data };
    },
    [Symbol.asyncDispose]: () => session.release(),
  };
}
