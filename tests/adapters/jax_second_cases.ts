/** Directions and Hessian-vector products of the link for jax-js: jax-js's own of its formula, k ranks equal one, who owns what. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { wasmDevice } from "../../kernels/wasm_device.ts";
import { webgpuDevice } from "../../kernels/webgpu_device.ts";
import { syncBatchNorm } from "../../lib/adapters/jax.ts";
import { type Device, initBatchNorm, inProcessGroup, referenceDevice } from "../../mod.ts";
import { census } from "../recording.ts";
import { testsWebgpu } from "../webgpu_kit.ts";
import { type Case, secondOfJax, secondOfRanks } from "./jax_second.ts";
import { type JaxModule, loadJax } from "./load_jax.ts";

/** jax-js has workers of its own, which live as long as the process. */
const SANITIZE = { sanitizeOps: false, sanitizeResources: false };

const cases: fc.Arbitrary<Case> = fc.record({
  // Enough rows for a variance that says something.
  counts: fc.array(fc.nat(4), { maxLength: 3 }).map((rest) => [4, ...rest]),
  inner: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 3 }),
  at: fc.nat(2),
  affine: fc.boolean(),
  seed: fc.nat(10_000),
}).map(({ at, ...rest }) => ({ ...rest, axis: 1 + at % rest.inner.length }));

/** Both sides in float32: jax-js differentiates the formula, whose terms cancel; those are of the size of the largest. */
function assertClose(own: readonly number[], other: readonly number[], what: string): void {
  assert.equal(own.length, other.length, what);
  const largest = Math.max(1, ...other.map(Math.abs));
  const apart = Math.max(0, ...own.map((value, i) => Math.abs(value - other[i])));
  assert(apart <= 1e-4 * largest, `${what}: ${apart} apart, of ${largest}`);
}

async function compare<A>(jax: JaxModule, device: Device<A>, task: Case): Promise<void> {
  const what = JSON.stringify(task);
  const ranks = await secondOfRanks(jax, device, task);
  const whole = await secondOfJax(jax, task);
  assertClose(ranks.ty, whole.ty, `jvp of ${what}`);
  assertClose(ranks.along, ranks.ty, `direction of y beside hvp of ${what}`);
  assertClose(ranks.hh, whole.hh, `hvp by h of ${what}`);
  if (task.affine) assertClose(ranks.hgamma!, whole.hgamma!, `hvp by gamma of ${what}`);
  else assert.equal(ranks.hgamma, null);
  const [left, right] = ranks.adjoint;
  const scale = Math.max(1, ...ranks.ty.map(Math.abs)) * ranks.ty.length;
  assert(Math.abs(left - right) <= 1e-5 * scale, `${left} and ${right}: adjoint, ${what}`);
}

Deno.test({
  name:
    "jax-js wasm: jvp and hvp of ranks are jax-js's own of its formula, and jvp is adjoint to pullback",
  ...SANITIZE,
  fn: async () => {
    const jax = await loadJax("wasm");
    assert(jax);
    await using device = await wasmDevice();
    const run = (task: Case) => compare(jax, device, task);
    await fc.assert(fc.asyncProperty(cases, run), { numRuns: 25, seed: 26 });
  },
});

Deno.test({
  name: "jax-js webgpu: jvp and hvp of ranks are jax-js's own of its formula",
  ignore: !(await testsWebgpu()),
  ...SANITIZE,
  fn: async () => {
    const jax = await loadJax("webgpu");
    assert(jax);
    using device = webgpuDevice(jax.getWebGPUDevice());
    await compare(jax, device, {
      counts: [3, 0, 2],
      inner: [2, 3],
      axis: 1,
      affine: true,
      seed: 7,
    });
    jax.defaultDevice("wasm");
  },
});

Deno.test({
  name:
    "jax-js wasm: jvp and hvp give up what they are given, leave nothing, and end with the pullback",
  ...SANITIZE,
  fn: async () => {
    const jax = await loadJax("wasm");
    assert(jax);
    const { device, alive } = census(referenceDevice());
    const [group] = inProcessGroup(1);
    const norm = syncBatchNorm(jax, { device, group });
    const array = (values: readonly number[], shape: readonly number[]) =>
      jax.numpy.array(Float32Array.from(values), { shape: [...shape], device: "wasm" });
    const rows = () => array([1, 2, 6], [3, 1]);
    const link = await norm(
      ...[rows(), array([2], [1]), null] as const,
      initBatchNorm(device, 1, { affine: false }),
    );
    const { pullback, jvp, hvp, state } = link;
    const [dy, th, tgamma] = [rows(), rows(), array([1], [1])];
    const before = alive();
    const made = [await jvp(th.ref, null, null), ...await hvp(dy.ref, th.ref, tgamma.ref, null)];
    assert.deepEqual([dy, th, tgamma].map(({ refCount }) => refCount), [1, 1, 1]);
    assert.deepEqual(made.map((own) => own?.refCount), [1, 1, 1, 1]);
    assert.equal(alive(), before, "arrays of the device");
    await assert.rejects(jvp(th, null, tgamma), /forward must have had a bias/);
    await assert.rejects(hvp(dy, tgamma, null, null), /the shape of th must be \(3, 1\)/);
    assert.deepEqual([dy, th, tgamma].map(({ refCount }) => refCount), [1, 1, 1], "not given up");
    pullback.dispose();
    await assert.rejects(jvp(th, null, null), /follow the directions as the pullback was disposed/);
    await assert.rejects(hvp(dy, th, null, null), /the pullback was disposed/);
    device.free(...[state.runningMean, state.runningVar].flatMap((own) => own ?? []));
    assert.equal(alive(), 0);
  },
});
