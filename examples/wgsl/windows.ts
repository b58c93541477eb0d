/**
 * Convolutions as matrix products: what a 3x3 window sees laid out in rows, and back.
 *
 * @module
 */

import { WINDOW, WINDOW_AREA } from "../layers.ts";
import { type Kernel, WORKGROUP } from "./kernel.ts";

/** Rows of 9 * channels; an invocation per element, which looks its pixel up. */
export const UNFOLD: Kernel = {
  name: "unfold",
  code: `
struct Parameters { xAt: u32, side: u32, channels: u32, stride: u32, stops: u32 }
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> rows: array<f32>;

@compute @workgroup_size(${WORKGROUP})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = (group.y * grid.x + group.x) * ${WORKGROUP}u + thread;
  if (i >= arrayLength(&rows)) { return; }
  let channel = i % p.channels;
  let cell = i / p.channels % ${WINDOW_AREA}u;
  let place = i / p.channels / ${WINDOW_AREA}u;
  let stop = place % (p.stops * p.stops);
  let image = place / (p.stops * p.stops);
  // Counted from the border, whose 0 are the pixels 0 and side + 1.
  let top = stop / p.stops * p.stride + cell / ${WINDOW}u;
  let left = stop % p.stops * p.stride + cell % ${WINDOW}u;
  var value = 0.0;
  if (top >= 1u && top <= p.side && left >= 1u && left <= p.side) {
    let pixel = (image * p.side + top - 1u) * p.side + left - 1u;
    value = x[p.xAt + pixel * p.channels + channel];
  }
  rows[i] = value;
}
`,
};

/**
 * The transpose; an invocation per element of an image, which collects what each cell of the window has seen of it. To
 * scatter the rows instead, invocations would have to add to one place at once.
 */
export const FOLD: Kernel = {
  name: "fold",
  code: `
struct Parameters { rowsAt: u32, side: u32, channels: u32, stride: u32, stops: u32 }
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> rows: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(${WORKGROUP})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = (group.y * grid.x + group.x) * ${WORKGROUP}u + thread;
  if (i >= arrayLength(&x)) { return; }
  let channel = i % p.channels;
  let pixel = i / p.channels;
  // Counted from the border, as the window's stops are.
  let left = pixel % p.side + 1u;
  let top = pixel / p.side % p.side + 1u;
  let image = pixel / p.side / p.side;
  var total = 0.0;
  for (var cell = 0u; cell < ${WINDOW_AREA}u; cell++) {
    let down = cell / ${WINDOW}u;
    let right = cell % ${WINDOW}u;
    if (top < down || left < right) { continue; }
    if ((top - down) % p.stride != 0u || (left - right) % p.stride != 0u) { continue; }
    let below = (top - down) / p.stride;
    let beside = (left - right) / p.stride;
    if (below >= p.stops || beside >= p.stops) { continue; }
    let row = (image * p.stops + below) * p.stops + beside;
    total += rows[p.rowsAt + (row * ${WINDOW_AREA}u + cell) * p.channels + channel];
  }
  x[i] = total;
}
`,
};
