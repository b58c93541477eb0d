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
import { type Gate, MASK_PARAMETERS, maskReader, maskStorage } from "./mask.ts";
import { type Source, statistics, STATISTICS_PARAMETERS, statisticsStorage } from "./statistics.ts";
import {
  entry,
  members,
  PARTS_PARAMETERS,
  storedAs,
  stroll,
  type Tile,
  TILE_PARAMETERS,
  tiles,
  toChannels,
} from "./tiles.ts";

/** vec2f per channel before the slices. */
export const HEADER = 2;

/**
 * WGSL: `Sums`, and `addUp`, which adds what invocations have over the rows of each lane, of which the first `rows` have any,
 * and gives all of a lane the result. To be called by all invocations. Needs `tiles`.
 */
export function addUp(tile: Tile): string {
  const { taken } = members(tile);
  const head = `
struct Sums {
  dy: Statistic,
  product: Statistic, // of dy * (x - mean)
}

var<workgroup> sums: array<Sums, ${tile.workgroup}>;

fn plus(a: Sums, b: Sums) -> Sums {
  return Sums(a.dy + b.dy, a.product + b.product);
}

fn addUp(thread: u32, rows: u32, mine: Sums${taken}) -> Sums {`;
  if (tile.subgroups !== "none") {
    return `${head}
  var sum = mine;
  for (var step = 1u; step < members; step *= 2u) {
    let other = Sums(subgroupShuffleXor(sum.dy, step), subgroupShuffleXor(sum.product, step));
    sum = plus(sum, other);
  }
  workgroupBarrier(); // Whoever reads the sums of before has done so.
  if (member == 0u) { sums[thread / members] = sum; }
  workgroupBarrier();
  sum = sums[0];
  for (var k = 1u; k * members < ${tile.workgroup}u; k++) { sum = plus(sum, sums[k]); }
  return sum;
}
`;
  }
  return `${head}
  workgroupBarrier(); // Whoever reads the sums of before has done so.
  sums[thread] = mine;
  workgroupBarrier();
  for (var half = ROWS / 2u; half > 0u; half /= 2u) {
    if (half >= rows) { continue; }
    if (thread < half * LANES) { sums[thread] = plus(sums[thread], sums[thread + half * LANES]); }
    workgroupBarrier();
  }
  return sums[thread % LANES];
}
`;
}

/** What the gradients of a position are made of, by name and WGSL. */
export function gradientLoads({ gate }: Gate): (at: string) => Record<string, string> {
  const of = (name: string, at: string) =>
    `Values(${name}[offset(p.${name}, place.channel, ${at})])`;
  return (at) => ({
    dy: of("gradOutput", at),
    ...(gate === "output" && { output: of("output", at) }),
    ...(gate === "mask" && { isOpen: `isOpen(place.channel, ${at})` }),
  });
}

/** WGSL: the gradient at a position, as far as an activation lets it through. */
export function passed({ dy, output, isOpen }: Readonly<Record<string, string>>): string {
  const open = output ? `${output} > Values(0.0)` : isOpen;
  return open ? `select(Values(0.0), ${dy}, ${open})` : dy;
}

const PARAMETERS = {
  ...TILE_PARAMETERS,
  ...STATISTICS_PARAMETERS,
  ...PARTS_PARAMETERS,
} as const;

/**
 * Gradient sums of every slice of the box; its first slice writes the statistics.
 *
 * @param options storage; channels per workgroup; statistics; what says where dy counts
 * @returns the kernel: x, gradOutput, output or mask?, statistics -> parts
 */
export function gradientSumsKernel(
  options: Tile & Gate & {
    readonly dtype: DType;
    readonly source: Source;
  },
): Kernel {
  const { dtype, pack, source, gate, subgroups } = options;
  const stored = storedAs(dtype, pack);
  const { given } = members(options);
  const add = (names: Readonly<Record<string, string>>) =>
    `{
      let dy = ${passed(names)};
      // Left out rather than multiplied: x may be infinite where no gradient flows.
      few += select(dy * (${names.x} - stats.mean), Values(0.0), dy == Values(0.0));
      through += dy;
    }`;
  // A few terms at a time: rounding grows with the length of a chain of additions.
  const summed = (loads: readonly Readonly<Record<string, string>>[]) =>
    `var few = Values(0.0);
    var through = Values(0.0);
    ${loads.map(add).join("\n    ")}
    total = plus(total, Sums(across(through), across(few)));`;
  return kernel({
    name: "gradientSums",
    options,
    storage: {
      x: tensor(stored),
      gradOutput: tensor(stored),
      output: gate === "output" ? tensor(stored) : null,
      mask: gate === "mask" ? maskStorage("read") : null,
      ...statisticsStorage(source),
      parts: channelsResult("vec2f"),
    },
    parameters: { ...PARAMETERS, ...(gate === "mask" && MASK_PARAMETERS) },
    subgroups: subgroups === "declared",
    body: `${tiles(options)}${statistics(source, options)}${addUp(options)}${
      maskReader(options, options)
    }
${entry(options)} {
  let place = locate(group, grid, thread);
  let stats = statistics(place, thread${given});
  var total = Sums(Statistic(0.0), Statistic(0.0));
  ${
      stroll(
        options,
        (at) => ({
          ...gradientLoads(options)(at),
          x: `Values(x[offset(p.x, place.channel, ${at})])`,
        }),
        (_, names) => summed([names]),
        summed,
      )
    }
  let whole = addUp(thread, p.span, total${given});
  if (place.row > 0u || !exists(place)) { return; }
  let c = place.channel;
  let slice = p.firstSlice + place.slice;
  // The mean is stats.mean and what that is short of.
  let product = whole.product - stats.short * whole.dy;
  ${
      toChannels(options, (channel, i) =>
        `parts[p.partsAt + ${channel} * (p.partsSlices + ${HEADER}u) + ${HEADER}u + slice] = vec2f(whole.dy${i}, product${i});`)
    }
  if (slice > 0u) { return; }
  ${writeHeader(options, "parts", "p.partsSlices")}
}
`,
  });
}

/** WGSL: writes a lane's statistics before its sums. */
function writeHeader(tile: Tile, name: string, slices: string): string {
  return toChannels(tile, (channel, i) => {
    const at = `p.${name}At + ${channel} * (${slices} + ${HEADER}u)`;
    return `${name}[${at}] = vec2f(stats.mean${i}, stats.short${i});
    ${name}[${at} + 1u] = vec2f(stats.m2${i}, stats.count);`;
  });
}

/** WGSL: `gatherNAME`, the sums of a lane over all slices of an array of them. Needs `addUp`. */
export function gatherSums(tile: Tile, name: "local" | "total"): string {
  const { given, taken } = members(tile);
  const gather = `gather${name === "local" ? "Local" : "Total"}`;
  return `
fn ${name}Slice(channel: u32, k: u32) -> Sums {
  let record = p.${name}Slices + ${HEADER}u;
  let first = p.${name}At + channel * record + ${HEADER}u + k;
  let a = ${name}[first];
${
    tile.pack === "channels"
      ? `  let b = ${name}[first + record];
  let c = ${name}[first + 2u * record];
  let d = ${name}[first + 3u * record];
  return Sums(vec4f(a.x, b.x, c.x, d.x), vec4f(a.y, b.y, c.y, d.y));`
      : "  return Sums(a.x, a.y);"
  }
}

fn ${gather}(place: Place, thread: u32${taken}) -> Sums {
  // Beyond the last channel the last one's are as good as any.
  if (p.${name}Slices == 1u) { return ${name}Slice(min(place.channel, (p.channels - 1u) * WIDE), 0u); }
  var mine = Sums(Statistic(0.0), Statistic(0.0));
  if (exists(place)) {
    for (var k = place.row; k < p.${name}Slices; k += ROWS) {
      mine = plus(mine, ${name}Slice(place.channel, k));
    }
  }
  return addUp(thread, p.${name}Slices, mine${given});
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
    body: `${tiles(options)}${addUp(options)}${gatherSums(options, "local")}
${entry(options)} {
  let place = locate(group, grid, thread);
  let whole = gatherLocal(place, thread${members(options).given});
  if (place.row > 0u || !exists(place)) { return; }
  merged[p.mergedAt + place.channel * ${HEADER + 1}u + ${HEADER}u] = vec2f(whole.dy, whole.product);
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
      gatherSums(options, "local")
    }
${entry(options)} {
  let place = locate(group, grid, thread);
  let stats = statistics(place, thread${members(options).given});
  let whole = gatherLocal(place, thread${members(options).given});
  if (place.row > 0u || !exists(place)) { return; }
  let c = place.channel;
  ${writeHeader(options, "restated", "1u")}
  restated[p.restatedAt + c * ${HEADER + 1}u + ${HEADER}u] = vec2f(whole.dy, whole.product);
}
`,
  });
}
