/**
 * The loss.
 *
 * @module
 */

import { type Kernel, WORKGROUP } from "./kernel.ts";

/** Softmax and cross-entropy; an invocation per image, whose classes are few. */
export const CROSS_ENTROPY: Kernel = {
  name: "crossEntropy",
  code: `
struct Parameters { logitsAt: u32, labelsAt: u32, images: u32, classes: u32 }
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<f32>;
@group(0) @binding(3) var<storage, read_write> scores: array<vec2f>;
@group(0) @binding(4) var<storage, read_write> gradLogits: array<f32>;

@compute @workgroup_size(${WORKGROUP})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let image = (group.y * grid.x + group.x) * ${WORKGROUP}u + thread;
  if (image >= p.images) { return; }
  let row = p.logitsAt + image * p.classes;
  let label = u32(labels[p.labelsAt + image]);
  var largest = logits[row];
  for (var c = 1u; c < p.classes; c++) { largest = max(largest, logits[row + c]); }
  // Without its maximum taken off, exp overflows.
  var sum = 0.0;
  for (var c = 0u; c < p.classes; c++) { sum += exp(logits[row + c] - largest); }
  let mine = logits[row + label];
  scores[image] = vec2f(log(sum) + largest - mine, select(0.0, 1.0, mine == largest));
  for (var c = 0u; c < p.classes; c++) {
    let share = exp(logits[row + c] - largest) / sum;
    gradLogits[image * p.classes + c] = share - select(0.0, 1.0, c == label);
  }
}
`,
};
