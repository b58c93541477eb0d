/**
 * How a tensor is shared out among workgroups: the skeleton of every kernel that walks one.
 *
 * A job is one workgroup: a tile of `lanes` neighbouring channels, and one slice of the positions (sample, then place
 * within it). Within the workgroup an invocation stays with one channel and takes every `ROWS`-th position. With one lane
 * neighbouring invocations read neighbouring positions, which are neighbours in memory channels first; with many lanes
 * neighbouring channels, which are neighbours channels last. So one text serves both: the strides are parameters.
 *
 * A dispatch covers a box of the tensor (see `webgpu/plan.ts`): all counts below are the box's.
 *
 * @module
 */

/** How a workgroup is made up. */
export interface Tile {
  /** Channels that it sees, a power of two up to `workgroup`. */
  readonly lanes: number;
  /** Its invocations, a power of two; 256 are granted everywhere. */
  readonly workgroup: number;
}

/** Parameters of every kernel that walks a tensor. */
export const TILE_PARAMETERS = {
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
} as const;

/** Parameters of every kernel that writes an array in slices. */
export const PARTS_PARAMETERS = {
  /** Slices per channel of the whole array. */
  partsSlices: "u32",
  /** Number of the box's first slice in it. */
  firstSlice: "u32",
} as const;

/** Positions that an invocation takes at a time: values in registers, or terms of a short sum. */
export const HELD = 8;

/**
 * WGSL: where an invocation stands (`Place`), and where an element lies (`offset`, which takes a tensor's first element
 * and its strides per sample, channel and place).
 *
 * @param tile how workgroups are made up
 * @returns declarations
 */
export function tiles({ lanes, workgroup }: Tile): string {
  return `
const LANES = ${lanes}u;
const ROWS = ${workgroup / lanes}u;

struct Place {
  channel: u32,
  lane: u32,
  row: u32,
  slice: u32,
  begin: u32, // this invocation's first position
  end: u32,   // the slice's end; 0 where there is no such channel
}

fn locate(group: vec3u, grid: vec3u, thread: u32) -> Place {
  let job = group.x + group.y * grid.x;
  let slice = job % p.slices;
  let lane = thread % LANES;
  let row = thread / LANES;
  let channel = (job / p.slices) * LANES + lane;
  let begin = slice * p.span;
  let to = select(0u, min(begin + p.span, p.positions), channel < p.channels);
  return Place(channel, lane, row, slice, begin + row, to);
}

fn offset(strides: vec4u, channel: u32, position: u32) -> u32 {
  let sample = position / p.inner;
  let place = position - sample * p.inner;
  return strides.x + sample * strides.y + channel * strides.z + place * strides.w;
}
`;
}

/** WGSL: the head of every entry point. */
export function entry({ workgroup }: Tile): string {
  return `@compute @workgroup_size(${workgroup})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
)`;
}
