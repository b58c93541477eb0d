/** The ways in which a layer may normalize in training: by its batch, by ghost batches, or renormalizing. */

import type { Device } from "../device.ts";
import {
  batchNormForward,
  type ForwardCall,
  type ForwardOptions,
  forwards,
} from "../norm/forward.ts";
import { ghostAlone, ghostForward, type GhostSaved } from "../norm/ghost.ts";
import type { GroupSaved, LocalSaved } from "../norm/normalize.ts";
import { batchRenormForward, renormForward, type RenormSaved } from "../norm/renorm.ts";
import type { Crossing } from "../norm/steps.ts";
import type { BatchNormState } from "../state.ts";
import type { Tensor } from "../tensor.ts";
import type { LayerSettings } from "./check_layer.ts";

/** What every way gives. */
export interface Way<A, S> {
  readonly output: Tensor<A>;
  readonly state: BatchNormState<A>;
  readonly saved: S;
}

type Settings = Pick<LayerSettings, "ghost" | "renorm">;
type Local<A> = LocalSaved<A> | GhostSaved<A> | RenormSaved<A, LocalSaved<A>>;
type Group<A> = GroupSaved<A> | GhostSaved<A> | RenormSaved<A, GroupSaved<A>>;

/** Normalizes on one rank. */
export function locally<A>(
  { ghost, renorm }: Settings,
  state: BatchNormState<A>,
  input: Tensor<A>,
  effects: { readonly device: Device<A> },
  options: ForwardOptions<A>,
): Way<A, Local<A>> | Promise<Way<A, Local<A>>> {
  if (ghost !== undefined) {
    const call = { stateOf: () => state, input, options: { ...options, ghost } };
    return ghostAlone(effects.device, call, (device, array) => device.toWire(array));
  }
  if (renorm !== undefined) {
    return batchRenormForward(state, input, effects, { ...options, ...renorm });
  }
  return batchNormForward(state, input, effects, options);
}

/** Normalizes over a group; what is saved keeps the name that backward finds the group by. */
export function over<A>(
  { ghost, renorm }: Settings,
  call: ForwardCall<A>,
  label: string,
): Crossing<A, Way<A, Group<A>> | Promise<Way<A, Group<A>>>> {
  const { options } = call;
  if (ghost !== undefined) {
    return ghostForward({ ...call, options: { ...options, ghost } }, `${label} ghost=${ghost}`);
  }
  if (renorm !== undefined) {
    return renormForward({ ...call, options: { ...options, ...renorm } }, `${label} renorm`);
  }
  const { alone, launch, ...crossing } = forwards([call], label);
  return {
    ...crossing,
    tidy: false, // Of a state that was made for a lazy layer some arrays are replaced at once.
    alone: (...started) => alone(...started)[0],
    launch: (...started) => {
      const { wires, conclude } = launch(...started);
      return { wires, conclude: (totals) => conclude(totals)[0] };
    },
  };
}
