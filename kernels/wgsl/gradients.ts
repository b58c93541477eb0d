/**
 * Gradients of the input, the residual and the parameters, from gradient sums.
 *
 * @module
 */

import type { DType } from "../../lib/tensor.ts";
import {
  addUp,
  gatherSums,
  gradientLoads,
  HEADER,
  passed,
  SUMS_PARAMETERS,
  TOTAL_PARAMETERS,
} from "./gradient_sums.ts";
import { channels, channelsResult, type Kernel, kernel, result, tensor } from "./kernel.ts";
import { type Gate, MASK_PARAMETERS, maskReader, maskStorage } from "./mask.ts";
import { INVSTD } from "./moments_algebra.ts";
import {
  entry,
  members,
  ofChannels,
  storedAs,
  stroll,
  type Tile,
  TILE_PARAMETERS,
  tiles,
  toChannels,
} from "./tiles.ts";

/** WGSL: `stated`, the statistics that stand before the sums. */
function stated(tile: Tile): string {
  const of = (offset: string, component: string) =>
    ofChannels(tile, (channel) => `local[at(${channel})${offset}].${component}`);
  return `
struct Stated {
  mean: Statistic,
  short: Statistic,
  m2: Statistic,
  count: f32,
}

fn at(channel: u32) -> u32 {
  return p.localAt + channel * (p.localSlices + ${HEADER}u);
}

fn stated(c: u32) -> Stated {
  return Stated(${of("", "x")}, ${of("", "y")}, ${of(" + 1u", "x")}, local[at(c) + 1u].y);
}
`;
}

/** Parameters of the kernels' that write the gradients of weight and bias into one buffer. */
const PAIR_PARAMETERS = {
  /** Where the gradients of the box's channels go. */
  gradWeightAt: "u32",
  gradBiasAt: "u32",
  /** 1 in the first box of those channels, 0 in the others, which write none. */
  writesParameters: "u32",
} as const;

/** What the gradients of a pass are made of. */
export interface GradientsOptions extends Tile, Gate {
  readonly dtype: DType;
  /** The sums over the group: the local ones, others, or none in evaluation. */
  readonly total: "local" | "other" | "none";
  readonly weight: boolean;
  readonly residual: boolean;
  /** Whether the same dispatch writes the gradients of the parameters. */
  readonly parameters: boolean;
}

/**
 * gradInput = weight*s * (dy - sumDy/count - (x - mean) * s^2 * sumDyXmu/count), or weight*s*dy where there is no total;
 * gradResidual = dy; gradWeight = s * sumDyXmu and gradBias = sumDy from the local sums.
 *
 * @param options storage, channels per workgroup, what there is
 * @returns the kernel: x, gradOutput, output or mask?, local, total?, weight? -> gradInput, gradResidual?, gradParameters?
 */
export function gradientsKernel(options: GradientsOptions): Kernel {
  const { dtype, pack, total, weight, gate, residual, parameters, subgroups } = options;
  const stored = storedAs(dtype, pack);
  const training = total !== "none";
  const { given } = members(options);
  const write = (name: string, at: string, value: string) =>
    `${name}[offset(p.${name}, place.channel, ${at})] = ${stored}(${value});`;
  return kernel({
    name: "gradients",
    options,
    storage: {
      x: training ? tensor(stored) : null,
      gradOutput: tensor(stored),
      output: gate === "output" ? tensor(stored) : null,
      mask: gate === "mask" ? maskStorage("read") : null,
      local: channels("vec2f"),
      total: total === "other" ? channels("vec2f") : null,
      weight: weight ? channels("f32") : null,
      gradInput: result(stored),
      gradResidual: residual ? result(stored) : null,
      gradParameters: parameters ? { access: "read_write", element: "f32", holds: "whole" } : null,
    },
    parameters: {
      ...TILE_PARAMETERS,
      ...SUMS_PARAMETERS,
      ...(total === "other" && TOTAL_PARAMETERS),
      ...(parameters && PAIR_PARAMETERS),
      ...(gate === "mask" && MASK_PARAMETERS),
      eps: "f32",
    },
    subgroups: subgroups === "declared",
    body: `${tiles(options)}${INVSTD}${stated(options)}${addUp(options)}${
      gatherSums(options, "local")
    }${total === "other" ? gatherSums(options, "total") : ""}${maskReader(options, options)}
${entry(options)} {
  let place = locate(group, grid, thread);
  let own = gatherLocal(place, thread${given});
  ${total === "other" ? `let whole = gatherTotal(place, thread${given});` : "let whole = own;"}
  if (!exists(place)) { return; }
  let c = place.channel;
  let stats = stated(c);
  let s = invstd(stats.m2, stats.count);
  var scale = s;
  ${weight ? `scale *= ${ofChannels(options, (c) => `weight[p.weightAt + ${c}]`)};` : ""}
  ${
      training
        ? `let slope = s * s * (whole.product / stats.count);
  let level = whole.dy / stats.count - stats.short * slope;`
        : ""
    }
  ${
      parameters
        ? `if (p.writesParameters == 1u && place.slice == 0u && place.row == 0u) {
    let gradWeight = s * own.product;
    ${
          toChannels(options, (channel, i) =>
            `gradParameters[p.gradWeightAt + ${channel}] = gradWeight${i};
    gradParameters[p.gradBiasAt + ${channel}] = own.dy${i};`)
        }
  }`
        : ""
    }
  ${
      stroll(
        options,
        (at) => ({
          ...gradientLoads(options)(at),
          ...(training && { x: `Values(x[offset(p.x, place.channel, ${at})])` }),
        }),
        (at, names) =>
          `let through = ${passed(names)};
    ${residual ? write("gradResidual", at, "through") : ""}
    ${
            write(
              "gradInput",
              at,
              training
                ? `(through - level - (${names.x} - stats.mean) * slope) * scale`
                : "through * scale",
            )
          }`,
      )
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
    body: `${tiles(options)}${INVSTD}${stated(options)}${addUp(options)}${
      gatherSums(options, "local")
    }
${entry(options)} {
  let place = locate(group, grid, thread);
  let own = gatherLocal(place, thread${members(options).given});
  if (place.row > 0u || !exists(place)) { return; }
  let c = place.channel;
  let stats = stated(c);
  gradWeight[p.gradWeightAt + c] = invstd(stats.m2, stats.count) * own.product;
  gradBias[p.gradBiasAt + c] = own.dy;
}
`,
  });
}
