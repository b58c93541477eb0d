/**
 * Linear layers: the product, and its gradients.
 *
 * @module
 */

import { type Kernel, LANES, WORKGROUP } from "./kernel.ts";

/** y = x * weight^T; an invocation per element of y, whose sum does not depend on how many rows there are. */
export const LINEAR: Kernel = {
  name: "linear",
  code: `
struct Parameters { xAt: u32, weightAt: u32, inputs: u32, outputs: u32 }
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(${WORKGROUP})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = (group.y * grid.x + group.x) * ${WORKGROUP}u + thread;
  if (i >= arrayLength(&y)) { return; }
  let row = p.xAt + i / p.outputs * p.inputs;
  let column = p.weightAt + i % p.outputs * p.inputs;
  var total = 0.0;
  for (var k = 0u; k < p.inputs; k++) { total += x[row + k] * weight[column + k]; }
  y[i] = total;
}
`,
};

/** gradInput = dy * weight; an invocation per element. */
export const LINEAR_GRAD_INPUT: Kernel = {
  name: "linearGradInput",
  code: `
struct Parameters { dyAt: u32, weightAt: u32, inputs: u32, outputs: u32 }
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradInput: array<f32>;

@compute @workgroup_size(${WORKGROUP})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = (group.y * grid.x + group.x) * ${WORKGROUP}u + thread;
  if (i >= arrayLength(&gradInput)) { return; }
  let row = p.dyAt + i / p.inputs * p.outputs;
  let column = p.weightAt + i % p.inputs;
  var total = 0.0;
  for (var o = 0u; o < p.outputs; o++) { total += dy[row + o] * weight[column + o * p.inputs]; }
  gradInput[i] = total;
}
`,
};

/**
 * gradWeight = dy^T * x; eight invocations per element, since there may be thousands of rows to add up. Each adds every
 * eighth, then they meet in a tree: always in the same order, where atomics would have none. No invocation returns early,
 * as all of them must come to the barriers.
 */
export const LINEAR_GRAD_WEIGHT: Kernel = {
  name: "linearGradWeight",
  code: `
struct Parameters { xAt: u32, dyAt: u32, rows: u32, inputs: u32, outputs: u32 }
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradWeight: array<f32>;
var<workgroup> tree: array<f32, ${WORKGROUP}>;

@compute @workgroup_size(${WORKGROUP})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = ((group.y * grid.x + group.x) * ${WORKGROUP}u + thread) / ${LANES}u;
  let lane = thread % ${LANES}u;
  let o = i / p.inputs;
  let k = i % p.inputs;
  let rows = select(0u, p.rows, i < arrayLength(&gradWeight));
  var total = 0.0;
  for (var row = lane; row < rows; row += ${LANES}u) {
    total += dy[p.dyAt + row * p.outputs + o] * x[p.xAt + row * p.inputs + k];
  }
  tree[thread] = total;
  workgroupBarrier();
  for (var half = ${LANES / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { tree[thread] += tree[thread + half]; }
    workgroupBarrier();
  }
  if (lane == 0u && i < arrayLength(&gradWeight)) { gradWeight[i] = tree[thread]; }
}
`,
};

/** Sums of the columns of a matrix; eight invocations per column, in the order of {@linkcode LINEAR_GRAD_WEIGHT}. */
export const COLUMN_SUMS: Kernel = {
  name: "columnSums",
  code: `
struct Parameters { matrixAt: u32, rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> matrix: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;
var<workgroup> tree: array<f32, ${WORKGROUP}>;

@compute @workgroup_size(${WORKGROUP})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let column = ((group.y * grid.x + group.x) * ${WORKGROUP}u + thread) / ${LANES}u;
  let lane = thread % ${LANES}u;
  let rows = select(0u, p.rows, column < arrayLength(&sums));
  var total = 0.0;
  for (var row = lane; row < rows; row += ${LANES}u) {
    total += matrix[p.matrixAt + row * p.columns + column];
  }
  tree[thread] = total;
  workgroupBarrier();
  for (var half = ${LANES / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { tree[thread] += tree[thread + half]; }
    workgroupBarrier();
  }
  if (lane == 0u && column < arrayLength(&sums)) { sums[column] = tree[thread]; }
}
`,
};
