/**
 * A model as a program: its layers in an order that follows from the graph alone, cut at every batch norm.
 *
 * Between two batch norms a layer is called as the model itself would; at one the trainer awaits the group. Nested models
 * are part of the list, a shared layer is in it once for every place. The order is that of a walk from the model's outputs
 * back to its inputs, so that replicas agree on it whatever their layers' names are and in which order they were made.
 *
 * @module
 */

import { checkNorm, graphOf, normOf, normsIn } from "./internals.ts";
import type { Container, Layer, LayerVariable, Norm, Symbolic } from "./model.ts";

/** Where a tensor of a step is kept. */
export type Slot = number;

/** What a layer is given: a tensor, and whether its mask comes with it, which the border of a nested model stops. */
export interface Given {
  readonly slot: Slot;
  readonly masked: boolean;
}

/** One call of a layer. */
export interface LayerCall {
  readonly layer: Layer;
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

  const call = (layer: Layer, inputs: readonly Given[], count: number): Slot[] => {
    const outputs = Array.from({ length: count }, () => slots++);
    const trains = layer.trainableWeights.some((weight) => trained.has(weight)) ||
      inputs.some(({ slot }) => reached.has(slot));
    if (trains) outputs.forEach((slot) => reached.add(slot));
    const norm = normOf(layer);
    if (norm === null) {
      if (normsIn(layer).length > 0) throw hidden(layer, action);
      calls.push({ layer, inputs, outputs });
      return outputs;
    }
    checkNorm(norm, action);
    const place = `batch norm ${norms.length}`;
    const at = { layer: norm, input: inputs[0], output: outputs[0], place, reached: trains };
    norms.push(at);
    done.push({ calls, norm: at });
    calls = [];
    return outputs;
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
      const nested = normsIn(layer).length > 0 ? graphOf(layer) : null;
      const outputs = nested
        ? within(nested, inputs.map(({ slot }) => slot))
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

function hidden(layer: Layer, action: string): TypeError {
  return new TypeError(
    `Cannot ${action} as its batch norms must be layers of the model or of a nested model: the ` +
      `${layer.getClassName()} "${layer.name}" calls one itself; train it by replicate over a group that can block`,
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
