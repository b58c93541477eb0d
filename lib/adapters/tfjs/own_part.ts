/**
 * The part of a rank with rows: its layers stretch by stretch, with the group at every batch norm, there and back.
 *
 * @module
 */

import type { GroupForward } from "../../norm/forward.ts";
import type { Tensor } from "../../tensor.ts";
import type { TensorFlow, TfTensor } from "./framework.ts";
import { meet, summed, type Work } from "./meetings.ts";
import type { Norm, Variable } from "./model.ts";
import { backward, forward } from "./norm_meetings.ts";
import type { Found, Rows, Training } from "./part.ts";
import type { LayerCall, NormCall, Slot } from "./program.ts";
import { createTape } from "./tape.ts";
import { lossOf, metricsOf, packed } from "./totals.ts";
import { viewOf } from "./view.ts";

/** A batch norm between forward and backward. */
interface Between<A> {
  readonly call: NormCall;
  readonly x: TfTensor;
  readonly y: TfTensor;
  readonly shape: readonly number[];
  readonly gone: GroupForward<A>;
}

/** A tensor, and the mask that comes with it. */
interface Value {
  readonly tensor: TfTensor;
  readonly mask: TfTensor | null;
}

/** The part of a rank with rows; `use` has what was found before the arrays are freed. */
export async function* ownPart<A>(
  { tf, model, program, parameters, device, bridge }: Training<A>,
  { xs, ys, share }: Rows,
  use: (found: Found<A>) => Promise<void>,
): Work<Float64Array> {
  const tape = createTape(tf, parameters);
  const values = new Map<Slot, Value>();
  const mine: TfTensor[] = []; // What lives until the end, beside the values.
  const arrays = new Set<A>();
  const between: Between<A>[] = [];
  const keyword: { training: true; mask?: TfTensor } = { training: true };

  const valueOf = (slot: Slot): Value => values.get(slot)!;
  const callLayer = ({ layer, inputs, outputs }: LayerCall): void => {
    const given = inputs.map(({ slot }) => valueOf(slot).tensor);
    const masks = inputs.map(({ slot, masked }) => masked ? valueOf(slot).mask : null);
    // As tfjs does it: a mask stays for the layers that follow.
    if (masks.some((mask) => mask !== null)) keyword.mask = masks[0] ?? undefined;
    const made = tape.record(() => listOf(layer.apply(given, keyword)));
    const mask = layer.supportsMasking ? maskOf(tf, layer, given, masks) : null;
    if (mask) mine.push(mask);
    outputs.forEach((slot, i) => values.set(slot, { tensor: made[i], mask }));
  };
  const take = async (given: TfTensor, shape: readonly number[]): Promise<Tensor<A>> => {
    checkFloat32(given);
    const taken = await bridge.take(given, shape);
    arrays.add(taken.data);
    return taken;
  };
  const give = async (array: A, shape: readonly number[]): Promise<TfTensor> => {
    const made = await bridge.give(array, shape);
    arrays.delete(array);
    return made;
  };
  const free = (...done: readonly (A | null)[]): void => {
    const all = done.filter((array) => array !== null);
    bridge.free(...all);
    all.forEach((array) => arrays.delete(array));
  };
  try {
    program.inputs.forEach((slot, i) => values.set(slot, { tensor: xs[i], mask: null }));
    for (const { calls, norm, over } of program.stretches) {
      calls.forEach(callLayer);
      if (norm) {
        const { layer, input: { slot, masked }, output } = norm;
        const { tensor: x, mask } = valueOf(slot);
        const [gamma, beta] = parametersOf(layer);
        const shape = viewOf(x, layer.axis);
        const vector = async (of: Variable | null) => of && (await take(of, [1, of.size])).data;
        const entry = {
          ...{ layer, input: await take(x, shape) },
          ...{ weight: await vector(gamma), bias: await vector(beta) },
        };
        const gone = yield* meet(forward(device, entry));
        arrays.add(gone.moments.data);
        arrays.add(gone.output.data);
        const y = await give(gone.output.data, x.shape);
        tape.link([x, gamma, beta].filter((from) => from !== null), y);
        values.set(output, { tensor: y, mask: masked ? mask : null });
        between.push({ call: norm, x, y, shape, gone });
      }
      for (const slot of over) {
        valueOf(slot).tensor.dispose();
        values.delete(slot);
      }
    }
    const outputs = program.outputs.map((slot) => valueOf(slot).tensor);
    const [loss] = tape.record(() => [lossOf(tf, model, ys, outputs, share)]);
    const metrics = metricsOf(tf, model, ys, outputs, share);
    mine.push(loss, ...metrics);

    tape.add(loss, tf.keep(tf.onesLike(loss)));
    tape.back();
    for (const { call: { layer, reached }, x, y, shape, gone: { saved } } of between.toReversed()) {
      const dy = tape.take(y) ?? tf.keep(tf.zeros(y.shape));
      mine.push(dy);
      if (reached) {
        const gradOutput = await take(dy, shape);
        const { gradInput, gradWeight, gradBias } = yield* meet(
          backward(device, saved, gradOutput),
        );
        const made = [gradInput.data, gradWeight, gradBias];
        made.forEach((array) => array !== null && arrays.add(array));
        free(gradOutput.data);
        for (const [i, of] of [x, ...parametersOf(layer)].entries()) {
          const array = made[i];
          if (array === null || of === null) continue;
          if (tape.wants(of)) tape.add(of, await give(array, of.shape));
          else free(array);
        }
      }
      dy.dispose();
      free(saved.input.data, saved.weight, saved.bias);
      tape.back();
      bridge.sweep();
    }
    const own = await packed(tf, [loss, ...metrics], parameters.map(tape.take), parameters);
    const totals = yield* meet(summed(own));
    const seen = between.map(({ call: { layer }, gone: { moments } }) => ({ layer, moments }));
    await use({ totals, seen });
    return totals;
  } finally {
    for (const slot of program.inputs) values.delete(slot); // They are the caller's.
    tape.dispose();
    tf.dispose([...values.values()].map(({ tensor }) => tensor));
    tf.dispose(mine);
    bridge.free(...arrays);
    bridge.sweep();
  }
}

function parametersOf({ gamma, beta }: Norm): readonly [Variable | null, Variable | null] {
  return [gamma?.read() ?? null, beta?.read() ?? null];
}

function maskOf(
  tf: TensorFlow,
  layer: LayerCall["layer"],
  inputs: readonly TfTensor[],
  masks: readonly (TfTensor | null)[],
): TfTensor | null {
  return tf.tidy(() => {
    const mask = layer.computeMask(inputs, masks);
    const first = Array.isArray(mask) ? mask[0] : mask;
    return first ? tf.keep(first) : null;
  });
}

function listOf<T>(value: T | readonly T[]): readonly T[] {
  return Array.isArray(value) ? value : [value as T];
}

function checkFloat32({ dtype }: TfTensor): void {
  if (dtype === "float32") return;
  throw new TypeError(
    `Cannot normalize the batch as its elements must be float32: current dtype is ${dtype}`,
  );
}
