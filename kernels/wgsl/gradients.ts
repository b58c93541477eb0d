/** Gradients of the input, the residual and the parameters, from gradient sums. */

import type { DType } from "../../lib/tensor.ts";
import { gather, slicesOf, structOf, treeReduce } from "./fold.ts";
import { gradientLoads, gradientSums, stated } from "./gradient_sums.ts";
import { type Kernel, tensor, vector, written } from "./kernel.ts";
import {
  behindGate,
  type Gate,
  gateParameters,
  maskReader,
  maskStorage,
  readsOutput,
} from "./mask.ts";
import { INVSTD, moments } from "./moments_algebra.ts";
import {
  aheadOf,
  loop,
  ofVector,
  putValues,
  storedAs,
  type Tile,
  tiledKernel,
  toChannels,
  valuesOf,
} from "./tiles.ts";
import { type Weighing, weightsReader, weightsStorage } from "./weights.ts";

/** What the gradients of a pass are made of. */
export interface GradientsOptions extends Tile, Gate, Weighing {
  readonly dtype: DType;
  /** The sums over the group: the local ones, others, or none in evaluation. */
  readonly total: "local" | "other" | "none";
  readonly weight: boolean;
  readonly residual: boolean;
  /** Whether the same dispatch writes the gradients of the parameters, into one buffer. */
  readonly parameters: boolean;
}

/** WGSL: what both kernels do before they have gradients to write. */
function declared(tile: Tile): string {
  return `${structOf(moments)}${INVSTD}${stated(tile)}${treeReduce(tile, gradientSums)}${
    gather(tile, gradientSums, "local")
  }`;
}

/**
 * gradInput = weight*s * (dy - sumDy/count - (x - mean) * s^2 * sumDyXmu/count), or weight*s*dy where there is no total;
 * gradResidual = dy; gradWeight = s * sumDyXmu and gradBias = sumDy from the local sums: x, gradOutput, output or mask?, weights?,
 * local, total?, weight? -> gradInput, gradResidual?, gradParameters?. Weights of examples scale the terms behind dy.
 */
export function gradientsKernel(options: GradientsOptions): Kernel {
  const { dtype, pack, total, weight, gate, residual, parameters, weights } = options;
  const stored = storedAs(dtype, pack);
  const training = total !== "none";
  const isWeighted = weights !== "none";
  const centred = (x: string | undefined, at: string) => {
    const shift = `level + (${x} - stats.mean) * slope`;
    if (!isWeighted) return `(through - level - (${x} - stats.mean) * slope) * scale`;
    const w = `weightsAt(${at})`;
    return `(through - select(Values(0.0), ${w} * (${shift}), ${w} > Values(0.0))) * scale`;
  };
  const write = (name: string, at: string, value: string) =>
    putValues(name, at, `${stored}(${value})`);
  return tiledKernel({
    name: "gradients",
    options,
    storage: {
      x: training ? tensor(stored) : null,
      gradOutput: tensor(stored),
      output: readsOutput(options) ? tensor(stored) : null,
      mask: gate === "mask" ? maskStorage("read") : null,
      weights: weightsStorage(options, options),
      local: slicesOf(gradientSums),
      total: total === "other" ? slicesOf(gradientSums) : null,
      weight: weight ? vector() : null,
      gradInput: written(tensor(stored)),
      gradResidual: residual ? written(tensor(stored)) : null,
      gradParameters: parameters ? { access: "read_write", element: "f32", holds: "whole" } : null,
    },
    parameters: {
      // Where the bias' gradients begin among those of the parameters.
      ...(parameters && { gradBiasAt: "u32" as const }),
      ...gateParameters(options),
      eps: "f32",
    },
    declared: `${declared(options)}${
      total === "other" ? gather(options, gradientSums, "total") : ""
    }${maskReader(options, options)}${weightsReader(options, options)}`,
    body: `let own = gather_local(place, thread);
  ${total === "other" ? `let whole = gather_total(place, thread);` : "let whole = own;"}
  if (!exists(place)) { return; }
  let c = place.channel;
  let stats = stated(c);
  let s = invstd(stats.m2, stats.count);
  var scale = s;
  ${weight ? `scale *= ${ofVector(options, "weight")};` : ""}
  ${
      training
        ? `let slope = s * s * (whole.product / stats.count);
  let level = whole.dy / stats.count - stats.meanLow * slope;`
        : ""
    }
  ${
      parameters
        ? `if (p.firstSlice + place.slice == 0u && place.row == 0u) {
    let gradWeight = s * own.product;
    ${
          toChannels(options, (channel, i) =>
            `gradParameters[p.firstChannel + ${channel}] = gradWeight${i};
    gradParameters[p.gradBiasAt + p.firstChannel + ${channel}] = own.dy${i};`)
        }
  }`
        : ""
    }
  ${
      loop(
        aheadOf(options.pack),
        (at) => ({ ...gradientLoads(options)(at), ...(training && { x: valuesOf("x", at) }) }),
        (at, names) =>
          `let through = ${behindGate(options, names, names.dy!)};
    ${residual ? write("gradResidual", at, "through") : ""}
    ${
            write(
              "gradInput",
              at,
              training ? centred(names.x, at) : "through * scale",
            )
          }`,
      )
    }`,
  });
}

/**
 * Gradients of the parameters in a dispatch of their own, where one dispatch may not bind as many buffers as it would take:
 * local -> gradWeight, gradBias.
 */
export function gradParametersKernel(options: Tile): Kernel {
  return tiledKernel({
    name: "gradParameters",
    options,
    storage: {
      local: slicesOf(gradientSums),
      gradWeight: written(vector()),
      gradBias: written(vector()),
    },
    parameters: { eps: "f32" },
    declared: declared(options),
    body: `let own = gather_local(place, thread);
  if (place.row > 0u || !exists(place)) { return; }
  let c = place.channel;
  let stats = stated(c);
  gradWeight[p.gradWeightAt + c] = invstd(stats.m2, stats.count) * own.product;
  gradBias[p.gradBiasAt + c] = own.dy;`,
  });
}
