/**
 * A model as a program: its layers in an order that follows from the graph alone, cut at every batch norm.
 *
 * Between two batch norms a layer is called as the model itself would; at one the trainer awaits the group. Nested models
 * are part of the list, a shared layer is in it once for every place, what TimeDistributed wraps once for every step of
 * time where a batch norm is in it. The order is that of a walk from the model's outputs
 * back to its inputs, so that replicas agree on it whatever their layers' names are and in which order they were made.
 *
 * @module
 */

import type { TensorFlow } from "./framework.ts";
import { checkNorm, graphOf, normOf, normsIn, timedIn } from "./internals.ts";
import type { Container, Layer, LayerVariable, Norm, Symbolic } from "./model.ts";

/** Where a tensor of a step is kept. */
export type Slot = number;

/** What a layer is given: a tensor, and whether its mask comes with it, which the border of a nested model stops. */
export interface Given {
  readonly slot: Slot;
  readonly masked: boolean;
}

/** One call of a layer, or of what is called as one. */
export interface LayerCall {
  readonly layer: Pick<Layer, "apply" | "supportsMasking" | "computeMask">;
  readonly inputs: readonly Given[];
  readonly outputs: readonly Slot[];
}

/** One place of a batch norm in the model. */
export interface NormCall {
  readonly layer: Norm;
  readonly input: Given;
  readonly output: Slot;
  /** The name of the place, the same on all ranks. */
  readonly place: string;
  /** Whether a parameter before it, or its own, is trained: only then do ranks meet on the way back. */
  readonly reached: boolean;
}

/** Layers up to a batch norm, or up to the model's outputs. */
export interface Stretch {
  readonly calls: readonly LayerCall[];
  readonly norm: NormCall | null;
  /** Tensors that nobody reads after it. */
  readonly over: readonly Slot[];
}

/** A model's layers in order. */
export interface Program {
  readonly inputs: readonly Slot[];
  readonly outputs: readonly Slot[];
  readonly stretches: readonly Stretch[];
  readonly norms: readonly NormCall[];
}

/** Makes the program of a model, of whose weights these are trained. */
export function programOf(
  tf: TensorFlow,
  model: Container,
  weights: readonly LayerVariable[],
  action: string,
): Program {
  const trained = new Set(weights);
  const reached = new Set<Slot>(); // Tensors that depend on what is trained.
  const done: { readonly calls: readonly LayerCall[]; readonly norm: NormCall | null }[] = [];
  const norms: NormCall[] = [];
  let calls: LayerCall[] = [];
  let slots = 0;

  const made = (inputs: readonly Given[], { count, trains }: Making) => {
    const outputs = Array.from({ length: count }, () => slots++);
    const depends = trains || inputs.some(({ slot }) => reached.has(slot));
    if (depends) outputs.forEach((slot) => reached.add(slot));
    return { outputs, depends };
  };
  const plain = (layer: LayerCall["layer"], inputs: readonly Given[], making: Making): Slot[] => {
    const { outputs } = made(inputs, making);
    calls.push({ layer, inputs, outputs });
    return outputs;
  };
  const call = (layer: Layer, inputs: readonly Given[], count: number): Slot[] => {
    const trains = layer.trainableWeights.some((weight) => trained.has(weight));
    const norm = normOf(layer);
    if (norm === null) {
      if (normsIn(layer).length > 0) throw hidden(layer, action);
      return plain(layer, inputs, { count, trains });
    }
    const { outputs, depends } = made(inputs, { count, trains });
    checkNorm(norm, action);
    const place = `batch norm ${norms.length}`;
    const at = { layer: norm, input: inputs[0], output: outputs[0], place, reached: depends };
    norms.push(at);
    done.push({ calls, norm: at });
    calls = [];
    return outputs;
  };
  /** A layer for each step of time, the batch norms in it too: its own statistics for each, in their order. */
  const timed = (layer: Layer, input: Given, steps: number): Slot[] => {
    const apart = plain(unstacking(tf), [input], { count: steps, trains: false });
    const graph = graphOf(layer);
    const ends = apart.map((slot) =>
      graph ? within(graph, [slot])[0] : call(layer, [{ slot, masked: false }], 1)[0]
    );
    const joined = ends.map((slot) => ({ slot, masked: false }));
    return plain(stacking(tf), [input, ...joined], { count: 1, trains: false });
  };
  const within = (graph: Container, feeds: readonly Slot[]): Slot[] => {
    const known = new Map<number, Given>();
    graph.inputs.forEach(({ id }, i) => known.set(id, { slot: feeds[i], masked: false }));
    const find = (symbol: Symbolic): Given => {
      const found = known.get(symbol.id);
      if (found) return found;
      const { sourceLayer: layer, nodeIndex } = symbol;
      const { inputTensors, outputTensors } = layer.inboundNodes[nodeIndex];
      // The last one first, as tfjs does: a batch norm in two places follows both in this order.
      const inputs = inputTensors.toReversed().map(find).reverse();
      const holds = normsIn(layer).length > 0;
      const nested = holds ? graphOf(layer) : null;
      const inTime = holds ? timedIn(layer) : null;
      const outputs = nested
        ? within(nested, inputs.map(({ slot }) => slot))
        : inTime
        ? timed(inTime, inputs[0], stepsOf(inputTensors[0], layer, action))
        : call(layer, inputs, outputTensors.length);
      outputTensors.forEach(({ id }, i) =>
        known.set(id, { slot: outputs[i], masked: nested === null })
      );
      return known.get(symbol.id)!;
    };
    return graph.outputs.map((symbol) => find(symbol).slot);
  };

  const inputs = model.inputs.map(() => slots++);
  const outputs = within(model, inputs);
  done.push({ calls, norm: null });
  if (norms.length === 0) throw noNorm(action);
  return { inputs, outputs, norms, stretches: withEnds(done, [...inputs, ...outputs]) };
}

/** What is made: how many tensors, and whether by something that is trained. */
interface Making {
  readonly count: number;
  readonly trains: boolean;
}

/** The steps of time of a tensor, one after the other. */
function unstacking(tf: TensorFlow): LayerCall["layer"] {
  return { supportsMasking: false, computeMask: () => null, apply: ([x]) => tf.unstack(x, 1) };
}

/** Steps of time as one tensor again, with the mask of that which they were taken from. */
function stacking(tf: TensorFlow): LayerCall["layer"] {
  return {
    supportsMasking: true,
    computeMask: (_, [mask]) => mask,
    apply: ([, ...steps]) => tf.stack(steps, 1),
  };
}

function stepsOf({ shape: [, steps] }: Symbolic, layer: Layer, action: string): number {
  if (typeof steps === "number") return steps;
  throw new TypeError(
    `Cannot ${action} as the number of steps of time must be known where a batch norm is called for each: the ` +
      `input of "${layer.name}" leaves it open; give the model's input its whole shape`,
  );
}

function hidden(layer: Layer, action: string): TypeError {
  return new TypeError(
    `Cannot ${action} as its batch norms must be layers of the model or of a nested model: the ` +
      `${layer.getClassName()} "${layer.name}" calls one itself, and is no TimeDistributed; train it by replicate over a group that can block`,
  );
}

function noNorm(action: string): TypeError {
  return new TypeError(
    `Cannot ${action} as the model must have a batch norm: current one has none; replicate trains it over a ` +
      `group that can block`,
  );
}

/** Adds to every stretch what is read there for the last time, but for what is to be kept. */
function withEnds(
  stretches: readonly Omit<Stretch, "over">[],
  kept: readonly Slot[],
): readonly Stretch[] {
  const seen = new Set(kept);
  return stretches.toReversed().map((stretch) => {
    const { calls, norm } = stretch;
    const touched = calls.flatMap(({ inputs, outputs }) => [
      ...inputs.map(({ slot }) => slot),
      ...outputs,
    ]);
    if (norm) touched.push(norm.input.slot);
    const over = [...new Set(touched)].filter((slot) => !seen.has(slot));
    over.forEach((slot) => seen.add(slot));
    return { ...stretch, over };
  }).reverse();
}
