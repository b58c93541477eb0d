/**
 * Reverse-mode differentiation in stretches: tfjs's own tape records each stretch of a model, and who links two of them
 * brings its gradient itself.
 *
 * tfjs goes back over a tape in one synchronous run. Here the same is done stretch by stretch, so that it can halt where a
 * batch norm awaits the other ranks.
 *
 * @module
 */

import { recordOn, type TapeNode } from "./internals.ts";
import type { TensorFlow, TfTensor } from "./framework.ts";

/** The stretches of one step, and the gradients of what was made in them. */
export interface Tape {
  /** Runs a body as a part of the last stretch, and keeps the tensors that it returns. */
  readonly record: (body: () => readonly TfTensor[]) => readonly TfTensor[];
  /** Begins a stretch with a tensor that somebody makes of others and whose gradient that one takes back to them. */
  readonly link: (from: readonly TfTensor[], to: TfTensor) => void;
  /** Whether a parameter that is trained comes before a tensor, or is it. */
  readonly wants: (tensor: TfTensor) => boolean;
  /** Adds to the gradient of a tensor; the addend is the tape's from here on. */
  readonly add: (of: TfTensor, addend: TfTensor) => void;
  /** Hands over the gradient of a tensor, or null where nothing that came back depends on it. */
  readonly take: (of: TfTensor) => TfTensor | null;
  /** Goes back over the last stretch. */
  readonly back: () => void;
  readonly dispose: () => void;
}

/** Makes a tape for gradients of these parameters. */
export function createTape(tf: TensorFlow, parameters: readonly TfTensor[]): Tape {
  const wanted = new Set(parameters.map(({ id }) => id));
  const gradients = new Map<number, TfTensor>();
  const stretches: TapeNode[][] = [[]];

  const derive = (from: readonly TfTensor[], to: readonly TfTensor[]): void => {
    if (from.some(({ id }) => wanted.has(id))) to.forEach(({ id }) => wanted.add(id));
  };
  const take = ({ id }: TfTensor): TfTensor | null => {
    const gradient = gradients.get(id) ?? null;
    gradients.delete(id);
    return gradient;
  };
  const add = (of: TfTensor, addend: TfTensor): void => {
    const before = take(of);
    gradients.set(of.id, before ? tf.keep(tf.add(before, addend)) : addend);
    if (before) tf.dispose([before, addend]);
  };
  const backOver = (node: TapeNode): void => {
    const dys = node.outputs.map(take);
    try {
      const inputs = Object.entries(node.inputs).filter(([, { id }]) => wanted.has(id));
      if (inputs.length === 0 || dys.every((dy) => dy === null)) return;
      const { gradient } = node;
      if (!gradient) throw noGradient(node);
      // A copy, which is none of memory: a gradient may be the very tensor that came, or the same for two inputs.
      const made = tf.tidy(() => {
        const by = gradient(dys);
        return inputs.map(([name]) => tf.keep(by[name]().clone()));
      });
      inputs.forEach(([, input], i) => add(input, made[i]));
    } finally {
      tf.dispose([...dys.filter((dy) => dy !== null), ...node.saved]);
    }
  };

  return Object.freeze<Tape>({
    record: (body) => {
      const nodes: TapeNode[] = [];
      try {
        return tf.tidy(() => recordOn(tf, body, nodes).map(tf.keep));
      } finally {
        nodes.forEach(({ inputs, outputs }) => derive(Object.values(inputs), outputs));
        stretches[stretches.length - 1].push(...nodes);
      }
    },
    link: (from, to) => {
      derive(from, [to]);
      stretches.push([]);
    },
    wants: ({ id }) => wanted.has(id),
    add,
    take,
    back: () => {
      const nodes = stretches.pop() ?? [];
      for (let node = nodes.pop(); node; node = nodes.pop()) {
        backOver(node);
      }
    },
    dispose: () => {
      tf.dispose([...gradients.values(), ...stretches.flat().flatMap(({ saved }) => saved)]);
      gradients.clear();
      stretches.length = 0;
    },
  });
}

function noGradient({ kernelName }: TapeNode): TypeError {
  return new TypeError(
    `Cannot train the model as every operation before the loss must have a gradient: TensorFlow.js has none of ` +
      `${kernelName}`,
  );
}
