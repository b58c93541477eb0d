/**
 * How a tensor is shared out among workgroups: the skeleton of every kernel that walks one.
 *
 * A job is one workgroup: a tile of `lanes` neighbouring channels, and one slice of the positions (sample, then place
 * within it). Within the workgroup an invocation stays with its channels and takes every `ROWS`-th position. With one lane
 * neighbouring invocations read neighbouring positions, which are neighbours in memory channels first; with many lanes
 * neighbouring channels, which are neighbours channels last. So one text serves both: the strides are parameters.
 *
 * Where four neighbours in memory are of one kind, an invocation takes them at once, as a pack: four places of a channel, or
 * four channels of a place. A pack is then the element of every count and stride here, and lanes are packs of channels.
 *
 * A dispatch covers a box of the tensor (see `webgpu/plan.ts`): all counts below are the box's.
 */

import type { DType } from "../../lib/tensor.ts";
import { elementOf, type Kernel, kernel, type Source } from "./kernel.ts";

/** What an invocation takes at a time: an element, or four neighbouring places or channels. */
export type Pack = "none" | "places" | "channels";

/** How a workgroup is made up. */
export interface Tile {
  /** Channels (with packs of channels: packs) that it sees, a power of two up to `workgroup`. */
  readonly lanes: number;
  /** Its invocations, a power of two; 256 are granted everywhere. */
  readonly workgroup: number;
  /** What an invocation takes at a time. */
  readonly pack: Pack;
  /** Whether there is one sample only, so that no position has to be divided. */
  readonly flat: boolean;
}

/** Elements of a pack. */
export function elementsOf(pack: Pack): number {
  return pack === "none" ? 1 : 4;
}

/** Packs that an invocation loads before it uses the first of them: 16 elements, or 8 where it takes one at a time. */
export function aheadOf(pack: Pack): number {
  return pack === "none" ? 8 : 4;
}

/** Channels of a lane. */
export function channelsOfLane(pack: Pack): number {
  return pack === "channels" ? 4 : 1;
}

/** WGSL's name of what a tensor's buffer is an array of. */
export function storedAs(dtype: DType, pack: Pack): string {
  return pack === "none" ? elementOf(dtype) : `vec4<${elementOf(dtype)}>`;
}

/** Parameters of every kernel that walks a tensor. */
const TILE_PARAMETERS = {
  /** Channels of the box. */
  channels: "u32",
  /** Positions per channel: samples of the box times places per sample. */
  positions: "u32",
  /** Places per sample. */
  inner: "u32",
  /** Positions per slice. */
  span: "u32",
  /** Slices that the positions are cut into. */
  slices: "u32",
  /** The box's first channel among the tensor's. */
  firstChannel: "u32",
  /** The box's first slice among those of all boxes of its channels. */
  firstSlice: "u32",
  /** Always 0, which no compiler can know. */
  zero: "u32",
} as const;

/**
 * WGSL: where an invocation stands (`Place`), and where an element lies (`offset`, which takes a tensor's first element
 * and its strides per sample, channel and place). `Values` is what a load gives, `Statistic` a number of each channel of a
 * lane, and `across` adds up the values of a load that belong to one channel.
 */
function tiles({ lanes, workgroup, pack, flat }: Tile): string {
  return `
alias Values = ${pack === "none" ? "f32" : "vec4f"};
alias Statistic = ${pack === "channels" ? "vec4f" : "f32"};

const LANES = ${lanes}u;
const ROWS = ${workgroup / lanes}u;
const WIDE = ${channelsOfLane(pack)}u; // channels of a lane

struct Place {
  channel: u32, // the lane's first
  lane: u32,
  row: u32,
  slice: u32,
  begin: u32,   // this invocation's first position
  end: u32,     // the slice's end; 0 where there is no such channel
}

fn locate(group: vec3u, grid: vec3u, thread: u32) -> Place {
  let job = group.x + group.y * grid.x;
  let slice = job % p.slices;
  let lane = thread % LANES;
  let row = thread / LANES;
  let channel = (job / p.slices) * LANES + lane;
  let begin = slice * p.span;
  let to = select(0u, min(begin + p.span, p.positions), channel < p.channels);
  return Place(channel * WIDE, lane, row, slice, begin + row, to);
}

// Whether an invocation's lane has channels.
fn exists(place: Place) -> bool {
  return place.channel < p.channels * WIDE;
}

fn offset(strides: vec4u, channel: u32, position: u32) -> u32 {
${
    flat
      ? "  return strides.x + (channel / WIDE) * strides.z + position * strides.w;"
      : `  let sample = position / p.inner;
  let place = position - sample * p.inner;
  return strides.x + sample * strides.y + (channel / WIDE) * strides.z + place * strides.w;`
  }
}

fn across(values: Values) -> Statistic {
  return ${pack === "places" ? "dot(values, vec4f(1.0))" : "values"};
}
`;
}

/** WGSL: a number of each channel of a lane, from an array with one element per channel. */
export function ofChannels({ pack }: Pick<Tile, "pack">, element: (channel: string) => string) {
  if (pack !== "channels") return element("c");
  return `vec4f(${["c", "c + 1u", "c + 2u", "c + 3u"].map(element).join(", ")})`;
}

/** WGSL: writes a number of each channel of a lane, one by one. */
export function toChannels(
  { pack }: Pick<Tile, "pack">,
  write: (channel: string, component: string) => string,
): string {
  if (pack !== "channels") return write("c", "");
  return ["x", "y", "z", "w"].map((component, i) => write(`(c + ${i}u)`, `.${component}`)).join(
    "\n    ",
  );
}

/** WGSL: a vector's numbers of a lane. */
export function ofVector(tile: Pick<Tile, "pack">, name: string): string {
  return ofChannels(tile, (channel) => `${name}[p.${name}At + ${channel}]`);
}

/** WGSL: a tensor's values at a position. */
export function valuesOf(name: string, at: string): string {
  return `Values(${name}[offset(p.${name}, place.channel, ${at})])`;
}

/** WGSL: writes a tensor's values at a position, in its storage. */
export function putValues(name: string, at: string, stored: string): string {
  return `${name}[offset(p.${name}, place.channel, ${at})] = ${stored};`;
}

/** WGSL of values by name. */
export type Named = Readonly<Record<string, string>>;

/**
 * WGSL: loops over an invocation's positions. As long as there are `ahead` of them, it loads all before it uses the first: a
 * GPU waits for memory less often the more it has asked for.
 *
 * `load` says what is loaded at a position, `one` what is done with the values of a position, `many` the same for `ahead` of
 * them at once, from the names with a number behind and from where; one after the other by default.
 */
export function loop(
  ahead: number,
  load: (at: string) => Named,
  one: (at: string, names: Named) => string,
  many?: (names: readonly Named[], at: readonly string[]) => string,
): string {
  const numbered = (i: number) =>
    Object.fromEntries(Object.keys(load("")).map((name) => [name, `${name}${i}`]));
  const loads = (at: string, names: Named) =>
    Object.entries(load(at)).map(([name, wgsl]) => `let ${names[name]} = ${wgsl};`);
  const steps = Array.from({ length: ahead }, (_, i) => i);
  const at = (i: number) => `at${i}`;
  const all = [
    ...steps.map((i) => `let ${at(i)} = position + ${i}u * ROWS;`),
    ...steps.flatMap((i) => loads(at(i), numbered(i))),
    ...(many
      ? [many(steps.map(numbered), steps.map(at))]
      : steps.map((i) => `{ ${one(at(i), numbered(i))} }`)),
  ];
  const plain = Object.fromEntries(Object.keys(load("")).map((name) => [name, name]));
  return `
  var position = place.begin;
  for (; position + ${ahead - 1}u * ROWS < place.end; position += ${ahead}u * ROWS) {
    ${all.join("\n    ")}
  }
  for (; position < place.end; position += ROWS) {
    ${[...loads("position", plain), one("position", plain)].join("\n    ")}
  }`;
}

/** A kernel that begins in its `place`: what is declared after `tiles`, and the entry point's body. */
export function tiledKernel(
  { options, declared = "", body, ...source }: Omit<Source, "options"> & {
    readonly options: Tile;
    readonly declared?: string;
  },
): Kernel {
  return kernel({
    ...source,
    options,
    parameters: { ...TILE_PARAMETERS, ...source.parameters },
    body: `${tiles(options)}${declared}
@compute @workgroup_size(${options.workgroup})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let place = locate(group, grid, thread);
  ${body}
}
`,
  });
}
