/**
 * What is computed element by element.
 *
 * @module
 */

import { type Kernel, WORKGROUP } from "./kernel.ts";

/** Rows of a matrix by their numbers, which are exact as float32. */
export const PICK_ROWS: Kernel = {
  name: "pickRows",
  code: `
struct Parameters { matrixAt: u32, numbersAt: u32, columns: u32 }
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> matrix: array<f32>;
@group(0) @binding(2) var<storage, read> numbers: array<f32>;
@group(0) @binding(3) var<storage, read_write> picked: array<f32>;

@compute @workgroup_size(${WORKGROUP})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = (group.y * grid.x + group.x) * ${WORKGROUP}u + thread;
  if (i >= arrayLength(&picked)) { return; }
  let row = u32(numbers[p.numbersAt + i / p.columns]);
  picked[i] = matrix[p.matrixAt + row * p.columns + i % p.columns];
}
`,
};

/** x + bias, with the bias of each column. */
export const ADD_BIAS: Kernel = {
  name: "addBias",
  code: `
struct Parameters { xAt: u32, biasAt: u32, columns: u32 }
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(${WORKGROUP})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = (group.y * grid.x + group.x) * ${WORKGROUP}u + thread;
  if (i >= arrayLength(&y)) { return; }
  y[i] = x[p.xAt + i] + bias[p.biasAt + i % p.columns];
}
`,
};

/** max(x, 0). */
export const RELU: Kernel = {
  name: "relu",
  code: `
struct Parameters { xAt: u32 }
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(${WORKGROUP})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = (group.y * grid.x + group.x) * ${WORKGROUP}u + thread;
  if (i >= arrayLength(&y)) { return; }
  y[i] = max(x[p.xAt + i], 0.0);
}
`,
};

/** dy where output > 0, else 0. */
export const GATE: Kernel = {
  name: "gate",
  code: `
struct Parameters { dyAt: u32, outputAt: u32 }
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> output: array<f32>;
@group(0) @binding(3) var<storage, read_write> passed: array<f32>;

@compute @workgroup_size(${WORKGROUP})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = (group.y * grid.x + group.x) * ${WORKGROUP}u + thread;
  if (i >= arrayLength(&passed)) { return; }
  passed[i] = select(0.0, dy[p.dyAt + i], output[p.outputAt + i] > 0.0);
}
`,
};

/** One step of gradient descent. New vectors, since the library may still borrow the old ones. */
export const DESCEND: Kernel = {
  name: "descend",
  code: `
struct Parameters { oldAt: u32, velocityAt: u32, gradientAt: u32, rate: f32, momentum: f32 }
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> old: array<f32>;
@group(0) @binding(2) var<storage, read> velocity: array<f32>;
@group(0) @binding(3) var<storage, read> gradient: array<f32>;
@group(0) @binding(4) var<storage, read_write> moved: array<f32>;
@group(0) @binding(5) var<storage, read_write> faster: array<f32>;

@compute @workgroup_size(${WORKGROUP})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = (group.y * grid.x + group.x) * ${WORKGROUP}u + thread;
  if (i >= arrayLength(&moved)) { return; }
  let speed = p.momentum * velocity[p.velocityAt + i] + gradient[p.gradientAt + i];
  faster[i] = speed;
  moved[i] = old[p.oldAt + i] - p.rate * speed;
}
`,
};
