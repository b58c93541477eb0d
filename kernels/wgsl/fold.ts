/**
 * What a reduction gives of a channel, as kernels fold it: a struct of numbers, how two of them become one, the tree over a
 * workgroup, and the slices in memory. A new statistic is one value of {@linkcode Folded}.
 */

import type { Storage } from "./kernel.ts";
import { type Tile, toChannels } from "./tiles.ts";

/** A statistic in WGSL. */
export interface Folded {
  /** Name of the struct that a lane has. */
  readonly type: "Moments" | "Sums";
  /** Its numbers, as they are the components of an element in memory: one of each channel of a lane, or one for all of them. */
  readonly fields: Readonly<Record<string, "Statistic" | "f32">>;
  /** Elements per channel that stand before the slices. */
  readonly header: number;
  /** WGSL: `mergeTYPE`, two of them as one; `TYPE()`, all zeros, is nothing. */
  readonly merge: (tile: Pick<Tile, "pack">) => string;
}

const COMPONENTS = ["x", "y", "z", "w"];

/** Numbers of an element in memory. */
export function elementWidth({ fields }: Folded): number {
  return Object.keys(fields).length;
}

/** An array of slices that is read. */
export function slicesOf(folded: Folded): Storage {
  return { access: "read", element: `vec${elementWidth(folded)}f`, holds: "slices" };
}

/** WGSL: the struct. */
export function structOf({ type, fields }: Folded): string {
  return `
struct ${type} {
${Object.entries(fields).map(([name, kind]) => `  ${name}: ${kind},`).join("\n")}
}
`;
}

/**
 * WGSL: `reduceTYPE` merges what invocations have over the rows of each lane, of which the first `rows` have any, and gives all
 * of a lane the result. To be called by all invocations.
 */
export function treeReduce(tile: Tile, folded: Folded): string {
  const { type } = folded;
  const tree = `tree${type}`;
  return `${structOf(folded)}${folded.merge(tile)}
var<workgroup> ${tree}: array<${type}, ${tile.workgroup}>;

fn reduce${type}(thread: u32, rows: u32, mine: ${type}) -> ${type} {
  workgroupBarrier(); // Whoever reads the tree of before has done so.
  ${tree}[thread] = mine;
  workgroupBarrier();
  for (var half = ROWS / 2u; half > 0u; half /= 2u) {
    if (half >= rows) { continue; }
    if (thread < half * LANES) {
      ${tree}[thread] = merge${type}(${tree}[thread], ${tree}[thread + half * LANES]);
    }
    workgroupBarrier();
  }
  return ${tree}[thread % LANES];
}
`;
}

/** WGSL: `gather_NAME`, a lane's statistic from all slices of an array, for all of its invocations. Needs `treeReduce`. */
export function gather(tile: Tile, { type, fields, header }: Folded, name: string): string {
  const packed = tile.pack === "channels";
  const of = ([, kind]: [string, string], i: number) => {
    const component = COMPONENTS[i];
    if (!packed || kind === "f32") return `a.${component}`;
    return `vec4f(${["a", "b", "c", "d"].map((channel) => `${channel}.${component}`).join(", ")})`;
  };
  return `
fn slice_${name}(channel: u32, k: u32) -> ${type} {
  let record = p.${name}Slices + ${header}u;
  let first = p.${name}At + channel * record + ${header}u + k;
  let a = ${name}[first];
  ${
    packed
      ? ["b", "c", "d"].map((channel, i) => `let ${channel} = ${name}[first + ${i + 1}u * record];`)
        .join("\n  ")
      : ""
  }
  return ${type}(${Object.entries(fields).map(of).join(", ")});
}

fn gather_${name}(place: Place, thread: u32) -> ${type} {
  // Beyond the last channel the last one's are as good as any.
  if (p.${name}Slices == 1u) { return slice_${name}(min(place.channel, (p.channels - 1u) * WIDE), 0u); }
  var mine = ${type}();
  if (exists(place)) {
    for (var k = place.row; k < p.${name}Slices; k += ROWS) {
      mine = merge${type}(mine, slice_${name}(place.channel, k));
    }
  }
  return reduce${type}(thread, p.${name}Slices, mine);
}
`;
}

/** WGSL: where the record of a channel begins in an array of slices. */
export function recordAt({ header }: Folded, name: string, channel: string): string {
  return `p.${name}At + ${channel} * (p.${name}Slices + ${header}u)`;
}

/** WGSL: writes the lane's statistic `whole` as a slice of the channels from `c` on. */
export function writeSlice(tile: Tile, folded: Folded, name: string, slice: string): string {
  const fields = Object.entries(folded.fields);
  return toChannels(tile, (channel, i) => {
    const values = fields.map(([field, kind]) => `whole.${field}${kind === "f32" ? "" : i}`);
    const at = `${recordAt(folded, name, channel)} + ${folded.header}u + ${slice}`;
    return `${name}[${at}] = vec${fields.length}f(${values.join(", ")});`;
  });
}
