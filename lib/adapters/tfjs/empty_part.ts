/**
 * The part of a rank without rows: it takes part in all collectives with nothing and calls no layer, since not every kernel of
 * tfjs bears an empty tensor.
 *
 * @module
 */

import type { GroupForward } from "../../norm/forward.ts";
import { type Tensor, tensor } from "../../tensor.ts";
import { meet, summed, type Work } from "./meetings.ts";
import type { Norm } from "./model.ts";
import { backward, channelsOf, forward } from "./norm_meetings.ts";
import type { Found, Training } from "./part.ts";
import type { NormCall } from "./program.ts";

/** The part of a rank without rows. */
export async function* emptyPart<A>(
  { model, program, parameters, device }: Training<A>,
  use: (found: Found<A>) => Promise<void>,
): Work<Float64Array> {
  const arrays: A[] = [];
  const between: { readonly call: NormCall; readonly gone: GroupForward<A> }[] = [];
  const nothing = (layer: Norm): Tensor<A> => {
    const empty = tensor(device, [], [0, channelsOf(layer)]);
    arrays.push(empty.data);
    return empty;
  };
  try {
    for (const call of program.norms) {
      const { layer } = call;
      const entry = { layer, input: nothing(layer), weight: null, bias: null };
      const gone = yield* meet(forward(device, entry));
      arrays.push(gone.output.data, gone.moments.data);
      between.push({ call, gone });
    }
    for (const { call: { layer, reached }, gone: { saved } } of between.toReversed()) {
      if (!reached) continue;
      const { gradInput } = yield* meet(backward(device, saved, nothing(layer)));
      arrays.push(gradInput.data);
    }
    const length = parameters.reduce(
      (sum, { size }) => sum + size,
      1 + model.metricsTensors.length,
    );
    const totals = yield* meet(summed(new Float64Array(length)));
    const seen = between.map(({ call: { layer }, gone: { moments } }) => ({ layer, moments }));
    await use({ totals, seen });
    return totals;
  } finally {
    device.free(...arrays);
  }
}
