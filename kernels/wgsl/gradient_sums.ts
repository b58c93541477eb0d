/**
 * The two sums that gradients need, slice by slice: sum of dy, and sum of dy * (x - mean).
 *
 * An array of gradient sums has, per channel, the statistics of the pass as two vec2f (mean and what it is short of; m2
 * and count), and then one vec2f (sumDy, sumDyXmu) per slice. So the gradients that follow need no other statistics.
 *
 * @module
 */

import type { DType } from "../../lib/tensor.ts";
import { channels, channelsResult, type Kernel, kernel, tensor } from "./kernel.ts";
import { type Source, statistics, STATISTICS_PARAMETERS, statisticsStorage } from "./statistics.ts";
import { entry, HELD, PARTS_PARAMETERS, type Tile, TILE_PARAMETERS, tiles } from "./tiles.ts";

/** vec2f per channel before the slices. */
export const HEADER = 2;

/**
 * WGSL: adds up the vec4f in `sums` over the rows of each lane, of which the first `rows` have any; `sums[lane]` has the
 * result. Needs `tiles`.
 */
export function addUp({ workgroup }: Tile): string {
  return `
var<workgroup> sums: array<vec4f, ${workgroup}>;

fn addUp(thread: u32, rows: u32) {
  workgroupBarrier();
  for (var half = ROWS / 2u; half > 0u; half /= 2u) {
    if (half >= rows) { continue; }
    if (thread < half * LANES) { sums[thread] += sums[thread + half * LANES]; }
    workgroupBarrier();
  }
}
`;
}

/** WGSL: the gradient at a position, as far as an activation lets it through. */
export function gradient(gated: boolean): string {
  return `
fn gradient(channel: u32, position: u32) -> f32 {
  let dy = f32(gradOutput[offset(p.gradOutput, channel, position)]);
  ${
    gated
      ? "return select(0.0, dy, output[offset(p.output, channel, position)] > 0.0);"
      : "return dy;"
  }
}
`;
}

const PARAMETERS = {
  ...TILE_PARAMETERS,
  ...STATISTICS_PARAMETERS,
  ...PARTS_PARAMETERS,
} as const;

/**
 * Gradient sums of every slice of the box; its first slice writes the statistics.
 *
 * @param options storage; channels per workgroup; statistics; whether dy counts only where an output is positive
 * @returns the kernel: x, gradOutput, output?, statistics -> parts
 */
export function gradientSumsKernel(
  options: Tile & {
    readonly dtype: DType;
    readonly source: Source;
    readonly gated: boolean;
  },
): Kernel {
  const { dtype, source, gated } = options;
  return kernel({
    name: "gradientSums",
    options,
    storage: {
      x: tensor(dtype),
      gradOutput: tensor(dtype),
      output: gated ? tensor(dtype) : null,
      ...statisticsStorage(source),
      parts: channelsResult("vec2f"),
    },
    parameters: PARAMETERS,
    body: `${tiles(options)}${statistics(source, options)}${gradient(gated)}${addUp(options)}
const HELD = ${HELD}u;

${entry(options)} {
  let place = locate(group, grid, thread);
  let c = place.channel;
  let stats = statistics(place, thread);
  var total = vec2f(0.0);
  // A few terms at a time: rounding grows with the length of a chain of additions.
  for (var first = place.begin; first < place.end; first += ROWS * HELD) {
    var few = vec2f(0.0);
    let last = min(place.end, first + ROWS * HELD);
    for (var position = first; position < last; position += ROWS) {
      let dy = gradient(c, position);
      // Left out rather than multiplied: x may be infinite where no gradient flows.
      let product = select(dy * (f32(x[offset(p.x, c, position)]) - stats.x), 0.0, dy == 0.0);
      few += vec2f(dy, product);
    }
    total += few;
  }
  sums[thread] = vec4f(total, 0.0, 0.0);
  addUp(thread, p.span);
  if (place.row > 0u || c >= p.channels) { return; }
  let sum = sums[thread].xy;
  let at = p.partsAt + c * (p.partsSlices + ${HEADER}u);
  let slice = p.firstSlice + place.slice;
  parts[at + ${HEADER}u + slice] = vec2f(sum.x, sum.y - stats.y * sum.x);
  if (slice == 0u) {
    parts[at] = stats.xy;
    parts[at + 1u] = stats.zw;
  }
}
`,
  });
}

/** WGSL: the sums of a channel over all slices of `local`, and of `total` where that is another array. Needs `addUp`. */
export function gatherSums(total: boolean): string {
  return `
fn gatherSums(place: Place, thread: u32) -> vec4f {
  var mine = vec4f(0.0);
  if (place.channel < p.channels) {
    let at = p.localAt + place.channel * (p.localSlices + ${HEADER}u) + ${HEADER}u;
    for (var k = place.row; k < p.localSlices; k += ROWS) {
      mine += vec4f(local[at + k], 0.0, 0.0);
    }
    ${
    total
      ? `let begin = p.totalAt + place.channel * (p.totalSlices + ${HEADER}u) + ${HEADER}u;
    for (var k = place.row; k < p.totalSlices; k += ROWS) {
      mine += vec4f(0.0, 0.0, total[begin + k]);
    }`
      : ""
  }
  }
  sums[thread] = mine;
  addUp(thread, ${total ? "max(p.localSlices, p.totalSlices)" : "p.localSlices"});
  return sums[place.lane];
}
`;
}

/** Parameters of every kernel that gathers gradient sums. */
export const SUMS_PARAMETERS = {
  /** Slices per channel of the local sums. */
  localSlices: "u32",
} as const;

/** The same where there are other total sums. */
export const TOTAL_PARAMETERS = { totalSlices: "u32" } as const;

/**
 * Gradient sums in one slice, without statistics before them: what goes to the wire.
 *
 * @param options how workgroups are made up
 * @returns the kernel: local -> merged
 */
export function mergedSumsKernel(options: Tile): Kernel {
  return kernel({
    name: "mergedSums",
    options,
    storage: { local: channels("vec2f"), merged: channelsResult("vec2f") },
    parameters: { ...TILE_PARAMETERS, ...SUMS_PARAMETERS },
    body: `${tiles(options)}${addUp(options)}${gatherSums(false)}
${entry(options)} {
  let place = locate(group, grid, thread);
  let whole = gatherSums(place, thread);
  if (place.row == 0u && place.channel < p.channels) {
    merged[p.mergedAt + place.channel * ${HEADER + 1}u + ${HEADER}u] = whole.xy;
  }
}
`,
  });
}

/**
 * The same sums in one slice with the statistics before them, for sums that came from elsewhere.
 *
 * @param options where the statistics come from
 * @returns the kernel: local, statistics -> restated
 */
export function restatedSumsKernel(
  options: Tile & { readonly source: Source },
): Kernel {
  return kernel({
    name: "restatedSums",
    options,
    storage: {
      local: channels("vec2f"),
      ...statisticsStorage(options.source),
      restated: channelsResult("vec2f"),
    },
    parameters: { ...TILE_PARAMETERS, ...STATISTICS_PARAMETERS, ...SUMS_PARAMETERS },
    body: `${tiles(options)}${statistics(options.source, options)}${addUp(options)}${
      gatherSums(false)
    }
${entry(options)} {
  let place = locate(group, grid, thread);
  let stats = statistics(place, thread);
  let whole = gatherSums(place, thread);
  if (place.row > 0u || place.channel >= p.channels) { return; }
  let at = p.restatedAt + place.channel * ${HEADER + 1}u;
  restated[at] = stats.xy;
  restated[at + 1u] = stats.zw;
  restated[at + ${HEADER}u] = whole.xy;
}
`,
  });
}
