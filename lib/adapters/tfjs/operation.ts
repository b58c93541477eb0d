/**
 * A batch norm over a group as an operation of tfjs's, whose gradient is exact through the collective, and that gradient as one,
 * so that gradients of gradients are exact too.
 *
 * @module
 */

import type { BlockingGroup } from "../../collectives.ts";
import { secondWire } from "../../norm/second_wire.ts";
import { checkWire, type WireFormat } from "../../wire.ts";
import { checkInput, type NormInput } from "./check_input.ts";
import { isRecording } from "./internals.ts";
import {
  meanAndVariance,
  type NormGradients,
  type NormKernels,
  type NormPass,
  type Reduce,
  type SecondGiven,
  type SecondGradients,
} from "./kernels.ts";
import { reduced, tell } from "./reduce.ts";
import type { TensorFlow, TfTensor } from "./framework.ts";
import { viewOf } from "./view.ts";

const ACTION = "normalize the batch";

/** How and with whom. */
export interface NormEffects {
  readonly kernels: NormKernels;
  readonly group: BlockingGroup;
  /** What the ranks compare, and whether this rank's rows count. */
  readonly place: { readonly label: string; readonly counted: boolean };
}

/** A batch norm over a group, with statistics on the host. */
export function normalizeOver(
  tf: TensorFlow,
  input: NormInput,
  { kernels, group, place: { label, counted } }: NormEffects,
): {
  readonly y: TfTensor;
  readonly mean: Float32Array;
  readonly variance: Float32Array;
  readonly count: number;
} {
  const { x, gamma, beta, axis, epsilon } = input;
  const view = viewOf({ shape: x?.shape ?? [] }, axis);
  const channels = view[1];
  const place = label ? ` ${label}` : "";
  let moments: Float64Array = new Float64Array();

  /** Does what has a collective in it: a failure before that is told to the others, who wait there. */
  const meet = <R>(way: string, format: WireFormat, body: (reduce: Reduce) => R): R => {
    const label = `tfjs batch norm ${way}${place} C=${channels}`;
    let met = false;
    const reduce: Reduce = (make) => {
      met = true;
      let own = new Float64Array() as Float64Array;
      const local = () => {
        own = make();
        format.checkOwn?.(own, ACTION);
        return own;
      };
      const total = reduced(group, local, format.combine, label);
      checkWire(total, format.length(channels), ACTION);
      format.check(total, own, ACTION);
      return total;
    };
    try {
      return body(reduce);
    } catch (error) {
      if (met) throw error;
      tell(group, error, label);
    }
  };
  const passOf = ([x, ...rest]: readonly TfTensor[]): NormPass => ({
    ...{ x, view, epsilon, counted },
    gamma: gamma && rest[0],
    beta: beta && rest[gamma ? 1 : 0],
  });
  /** Gradients, in the order of the operation's inputs. */
  const ordered = (
    { dx, dgamma, dbeta }: NormGradients,
  ) => [dx, ...(gamma ? [dgamma] : []), ...(beta ? [dbeta] : [])];
  const backwards: Backwards = {
    first: (pass, dy) =>
      meet("backward", kernels.wires.sums, (reduce) => kernels.backward(pass, dy, moments, reduce)),
    second: (pass, given) =>
      meet("second backward", secondWire, (reduce) => kernels.second(pass, given, moments, reduce)),
  };

  const forward = (reduce: Reduce): TfTensor => {
    checkInput(tf, input, ACTION);
    const operation = tf.customGrad((...given) => {
      const [tensors, save] = inputsOf(given);
      const value = kernels.forward(passOf(tensors), (make) => moments = reduce(make));
      save(tensors);
      const gradFunc = (dy: TfTensor, saved: readonly TfTensor[]) =>
        isRecording(tf)
          ? ordered(differentiable(tf, passOf(saved), dy, backwards))
          : tf.tidy(() => ordered(backwards.first(passOf(saved), dy)));
      return { value, gradFunc };
    });
    return operation(x, ...[gamma, beta].filter((tensor) => tensor !== null));
  };
  const y = meet("forward", kernels.wires.moments, forward);
  const seen = kernels.wires.moments.rounded?.(moments) ?? moments;
  return { y, ...meanAndVariance(seen, channels), count: seen[0] };
}

/** The two ways back. */
interface Backwards {
  readonly first: (pass: NormPass, dy: TfTensor) => NormGradients;
  readonly second: (pass: NormPass, given: SecondGiven) => SecondGradients;
}

/**
 * The way back as an operation with a gradient of its own. What it returns lies side by side in one tensor, since an
 * operation of TensorFlow.js that brings its gradient has one result.
 */
function differentiable(
  tf: TensorFlow,
  { x, gamma, beta, ...rest }: NormPass,
  dy: TfTensor,
  { first, second }: Backwards,
): NormGradients {
  const [, channels] = rest.view;
  const cut = (packed: TfTensor): readonly TfTensor[] => {
    const parts = [[0, x.size], [x.size, channels], [x.size + channels, channels]];
    const [ofX, ...vectors] = parts.map(([from, size]) => tf.slice(packed, [from], [size]));
    return [tf.reshape(ofX, x.shape), ...vectors];
  };
  const passOf = ([x, ...more]: readonly TfTensor[]) => ({
    ...{ ...rest, x, beta },
    gamma: gamma && more[0],
  });
  const operation = tf.customGrad((...given) => {
    const [tensors, save] = inputsOf(given);
    const { dx, dgamma, dbeta } = first(passOf(tensors), tensors[tensors.length - 1]);
    save(tensors);
    const value = tf.concat([tf.reshape(dx, [x.size]), dgamma, dbeta]);
    const gradFunc = (gradient: TfTensor, saved: readonly TfTensor[]) => {
      if (isRecording(tf)) throw thirdOrder();
      return tf.tidy(() => {
        const [byDx, byDgamma, byDbeta] = cut(gradient);
        const given = { dy: saved[saved.length - 1], byDx, byDgamma, byDbeta };
        const { byX, byGamma, byDy } = second(passOf(saved), given);
        return [byX, ...(gamma ? [byGamma] : []), byDy];
      });
    };
    return { value, gradFunc };
  });
  const [dx, dgamma, dbeta] = cut(operation(x, ...(gamma ? [gamma] : []), dy));
  return { dx, dgamma, dbeta };
}

type Save = (saved: readonly TfTensor[]) => void;

/** What an operation with a gradient of its own is given: its inputs, and what saves them for the gradient. */
function inputsOf(given: readonly [...TfTensor[], Save]): readonly [readonly TfTensor[], Save] {
  return [given.slice(0, -1) as TfTensor[], given[given.length - 1] as Save];
}

function thirdOrder(): TypeError {
  return new TypeError(
    "Cannot differentiate the batch norm as its third derivative must not be asked for: current tape records the second " +
      "one; take gradients of gradients alone, and none of those",
  );
}
