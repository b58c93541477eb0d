/**
 * Gradients of the input, the residual and the parameters, from gradient sums.
 *
 * @module
 */

import type { DType } from "../../lib/tensor.ts";
import {
  addUp,
  gatherSums,
  gradient,
  HEADER,
  SUMS_PARAMETERS,
  TOTAL_PARAMETERS,
} from "./gradient_sums.ts";
import {
  channels,
  channelsResult,
  elementOf,
  type Kernel,
  kernel,
  result,
  tensor,
} from "./kernel.ts";
import { INVSTD } from "./moments_algebra.ts";
import { entry, type Tile, TILE_PARAMETERS, tiles } from "./tiles.ts";

/** WGSL: the statistics that stand before the sums. */
const STATED = `
fn stated(channel: u32) -> vec4f {
  let at = p.localAt + channel * (p.localSlices + ${HEADER}u);
  return vec4f(local[at], local[at + 1u]);
}
`;

/** Parameters of the kernels' that write the gradients of weight and bias into one buffer. */
const PAIR_PARAMETERS = {
  /** Where the gradients of the box's channels go. */
  gradWeightAt: "u32",
  gradBiasAt: "u32",
  /** 1 in the first box of those channels, 0 in the others, which write none. */
  writesParameters: "u32",
} as const;

/** What the gradients of a pass are made of. */
export interface GradientsOptions extends Tile {
  readonly dtype: DType;
  /** The sums over the group: the local ones, others, or none in evaluation. */
  readonly total: "local" | "other" | "none";
  readonly weight: boolean;
  readonly gated: boolean;
  readonly residual: boolean;
  /** Whether the same dispatch writes the gradients of the parameters. */
  readonly parameters: boolean;
}

/**
 * gradInput = weight*s * (dy - sumDy/count - (x - mean) * s^2 * sumDyXmu/count), or weight*s*dy where there is no total;
 * gradResidual = dy; gradWeight = s * sumDyXmu and gradBias = sumDy from the local sums.
 *
 * @param options storage, channels per workgroup, what there is
 * @returns the kernel: x, gradOutput, output?, local, total?, weight? -> gradInput, gradResidual?, gradParameters?
 */
export function gradientsKernel(options: GradientsOptions): Kernel {
  const { dtype, total, weight, gated, residual, parameters } = options;
  const element = elementOf(dtype);
  const training = total !== "none";
  return kernel({
    name: "gradients",
    options,
    storage: {
      x: training ? tensor(dtype) : null,
      gradOutput: tensor(dtype),
      output: gated ? tensor(dtype) : null,
      local: channels("vec2f"),
      total: total === "other" ? channels("vec2f") : null,
      weight: weight ? channels("f32") : null,
      gradInput: result(dtype),
      gradResidual: residual ? result(dtype) : null,
      gradParameters: parameters ? { access: "read_write", element: "f32", holds: "whole" } : null,
    },
    parameters: {
      ...TILE_PARAMETERS,
      ...SUMS_PARAMETERS,
      ...(total === "other" && TOTAL_PARAMETERS),
      ...(parameters && PAIR_PARAMETERS),
      eps: "f32",
    },
    body: `${tiles(options)}${INVSTD}${STATED}${gradient(gated)}${addUp(options)}${
      gatherSums(total === "other")
    }
${entry(options)} {
  let place = locate(group, grid, thread);
  let c = place.channel;
  let stats = stated(c);
  let s = invstd(stats);
  let sum = gatherSums(place, thread);
  let scale = s${weight ? " * weight[p.weightAt + c]" : ""};
  ${
      training
        ? `let whole = ${total === "other" ? "sum.zw" : "sum.xy"};
  let slope = s * s * (whole.y / stats.w);
  let level = whole.x / stats.w - stats.y * slope;`
        : ""
    }
  ${
      parameters
        ? `if (p.writesParameters == 1u && place.slice == 0u && place.row == 0u && c < p.channels) {
    gradParameters[p.gradWeightAt + c] = s * sum.y;
    gradParameters[p.gradBiasAt + c] = sum.x;
  }`
        : ""
    }
  for (var position = place.begin; position < place.end; position += ROWS) {
    let dy = gradient(c, position);
    ${residual ? `gradResidual[offset(p.gradResidual, c, position)] = ${element}(dy);` : ""}
    let value = ${
      training
        ? "(dy - level - (f32(x[offset(p.x, c, position)]) - stats.x) * slope) * scale"
        : "dy * scale"
    };
    gradInput[offset(p.gradInput, c, position)] = ${element}(value);
  }
}
`,
  });
}

/**
 * Gradients of the parameters in a dispatch of their own, where one dispatch may not bind as many buffers as it would take.
 *
 * @param options how workgroups are made up
 * @returns the kernel: local -> gradWeight, gradBias
 */
export function gradParametersKernel(options: Tile): Kernel {
  return kernel({
    name: "gradParameters",
    options,
    storage: {
      local: channels("vec2f"),
      gradWeight: channelsResult("f32"),
      gradBias: channelsResult("f32"),
    },
    parameters: { ...TILE_PARAMETERS, ...SUMS_PARAMETERS, eps: "f32" },
    body: `${tiles(options)}${INVSTD}${STATED}${addUp(options)}${gatherSums(false)}
${entry(options)} {
  let place = locate(group, grid, thread);
  let c = place.channel;
  let sum = gatherSums(place, thread);
  if (place.row > 0u || c >= p.channels) { return; }
  gradWeight[p.gradWeightAt + c] = invstd(stated(c)) * sum.y;
  gradBias[p.gradBiasAt + c] = sum.x;
}
`,
  });
}
