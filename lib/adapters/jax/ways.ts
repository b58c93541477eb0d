/**
 * The ways through a batch norm that has been run: back, along a direction, and along one of the way back. Each is one
 * collective, and takes what forward saved.
 *
 * @module
 */

import type { ReduceGroup } from "../../collectives.ts";
import type { Device } from "../../device.ts";
import { sum } from "../../moments.ts";
import { syncBatchNormBackward } from "../../norm/backward.ts";
import { syncBatchNormBackwardBackward } from "../../norm/backward_backward.ts";
import { syncBatchNormJvp } from "../../norm/jvp.ts";
import type { GroupSaved } from "../../norm/normalize.ts";
import { region, release } from "../../ownership.ts";
import { checkArrays, checkBackend, checkShape, type Extents, type Named } from "./check.ts";
import type { Jax, JaxArray } from "./framework.ts";
import { give, giveAll, take } from "./transfer.ts";
import { inTurn } from "./turn.ts";

/** What a normalized batch leads back to. */
export interface Pullback<J extends JaxArray, G extends J | null, B extends J | null> {
  /**
   * Takes the gradient of y, which it gives up, to those of h, gamma and beta. That of h is exact over all ranks; those of gamma
   * and beta are of this rank's rows, for `psum`. Every rank of the call must call it, as often.
   */
  (dy: J): Promise<readonly [dh: J, dgamma: G, dbeta: B]>;
  /** Frees what is kept for it; further calls reject. */
  readonly dispose: () => void;
}

/** The ways through a batch norm, open until `pullback.dispose()`. Every rank of the call must take each, as often. */
export interface Ways<J extends JaxArray, G extends J | null, B extends J | null> {
  /** The way back. */
  readonly pullback: Pullback<J, G, B>;
  /**
   * Takes directions of h, gamma and beta, which it gives up, to that of y: the Jacobian times a vector (forward mode), with the
   * rows of all ranks moving. Null where gamma or beta stays as it is.
   */
  readonly jvp: (th: J, tgamma: J | null, tbeta: J | null) => Promise<J>;
  /**
   * The Hessian of the sum of dy * y over all ranks' rows by (h, gamma), times directions of h, gamma and beta, for any
   * constant dy; and the direction of y beside it. It gives up all four. These are the directions of `pullback(dy)` where dy
   * stands still, and the gradients of a loss by h, gamma and dy whose gradients by dh, dgamma and dbeta are th, tgamma and tbeta.
   * That of gamma is of this rank's rows, for `psum`.
   */
  readonly hvp: (
    dy: J,
    th: J,
    tgamma: J | null,
    tbeta: J | null,
  ) => Promise<readonly [hh: J, hgamma: G, ty: J]>;
}

/** What the ways start from. */
interface From<J extends JaxArray, A> {
  readonly jax: Jax<J>;
  readonly device: Device<A>;
  readonly group: ReduceGroup;
}

/** Opens the ways of a call, which keep its arrays: on WebGPU what forward saved lies in them. */
export function waysOf<J extends JaxArray, A>(
  { jax, device, group }: From<J, A>,
  { h, gamma, beta }: Readonly<Record<"h", J>> & Readonly<Record<"gamma" | "beta", J | null>>,
  saved: GroupSaved<A>,
  extents: Extents,
): Ways<J, J | null, J | null> {
  let open = true;
  const kept = [h, gamma, beta];
  const end = () => kept.splice(0).forEach((array) => array?.dispose());
  const { shape, device: backend } = h;
  const channels = extents[1];
  const like = { shape, device: backend };
  const vector = { shape: [channels], device: backend };
  if (backend !== "webgpu") end();

  /** Takes arrays like h, and vectors, across the group; they are given up where that succeeds. */
  const across = async <R>(
    { name, action, rows, vectors }: {
      readonly name: string;
      readonly action: string;
      readonly rows: readonly Named<J>[];
      readonly vectors: readonly Named<J>[];
    },
    body: (
      effects: { readonly device: Device<A>; readonly group: ReduceGroup },
      taken: (array: J) => ReturnType<typeof take<A>>,
      vectorOf: (array: J | null) => Promise<A | null>,
    ) => Promise<R>,
  ): Promise<R> => {
    const given = [...rows, ...vectors];
    const label = `${name} C=${channels} float32`;
    const result = await inTurn(
      group,
      { combine: sum, label },
      (group) =>
        region(device, async (scope) => {
          if (!open) throw new TypeError(`Cannot ${action} as the pullback was disposed`);
          checkArrays(given, action);
          for (const [list, wanted] of [[rows, shape], [vectors, [channels]]] as const) {
            for (const [what, array] of list) array && checkShape(array, wanted, what, action);
          }
          for (const [, array] of given) array && checkBackend(jax, device, array, action);
          return await body(
            { device: scope, group },
            (array) => take(scope, array, extents),
            async (array) => array && (await take(scope, array, [1, channels])).data,
          );
        }),
    );
    for (const [, array] of given) array?.dispose();
    return result;
  };
  const given = (scope: Device<A>, array: A | null, as: Pick<JaxArray, "shape" | "device">) => () =>
    array === null ? Promise.resolve(null) : give(jax, scope, array, as);

  const pullback = (dy: J) =>
    across({
      ...{ name: "syncBatchNormBackward", action: "pull the gradient back" },
      ...{ rows: [["dy", dy]], vectors: [] },
    }, async (effects, taken) => {
      const gradients = await syncBatchNormBackward(saved, await taken(dy), effects, {
        donate: true,
      });
      const { gradInput, gradWeight, gradBias } = gradients;
      return await giveAll<J | null>([
        given(effects.device, gradInput.data, like),
        given(effects.device, gradWeight, vector),
        given(effects.device, gradBias, vector),
      ]) as [J, J | null, J | null];
    });
  const jvp = (th: J, tgamma: J | null, tbeta: J | null) =>
    across({
      ...{ name: "syncBatchNormJvp", action: "follow the directions" },
      ...{ rows: [["th", th]], vectors: [["tgamma", tgamma], ["tbeta", tbeta]] },
    }, async (effects, taken, vectorOf) => {
      const tangents = {
        ...{ input: await taken(th), weight: await vectorOf(tgamma), bias: await vectorOf(tbeta) },
      };
      const along = await syncBatchNormJvp(saved, tangents, effects);
      return await give(jax, effects.device, along.data, like);
    });
  const hvp = (dy: J, th: J, tgamma: J | null, tbeta: J | null) =>
    across({
      ...{ name: "syncBatchNormBackwardBackward", action: "follow the directions back" },
      ...{ rows: [["dy", dy], ["th", th]], vectors: [["tgamma", tgamma], ["tbeta", tbeta]] },
    }, async (effects, taken, vectorOf) => {
      const gradOutput = await taken(dy);
      // The Hessian is symmetric: what a direction brings is what a gradient by the same result would.
      const second = await syncBatchNormBackwardBackward(saved, gradOutput, {
        gradInput: await taken(th),
        ...{ gradWeight: await vectorOf(tgamma), gradBias: await vectorOf(tbeta) },
      }, effects);
      return await giveAll<J | null>([
        given(effects.device, second.gradInput.data, like),
        given(effects.device, second.gradWeight, vector),
        given(effects.device, second.gradGradOutput.data, like),
      ]) as [J, J | null, J];
    });
  const dispose = () => {
    if (!open) return;
    open = false;
    release(device, saved);
    end();
  };
  return { pullback: Object.freeze(Object.assign(pullback, { dispose })), jvp, hvp };
}
