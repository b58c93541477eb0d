/** The link itself: what it computes for any shape and partition, who owns what, and what it refuses. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  type BatchNormState,
  type Device,
  initBatchNorm,
  inProcessGroup,
  isCollectiveError,
  type ProcessGroup,
  type ReferenceArray,
  referenceDevice,
  runRanks,
  stateToHost,
  sum,
} from "../../mod.ts";
import { psum, syncBatchNorm } from "../../lib/adapters/jax.ts";
import { arraysIn, derive } from "../../lib/derived.ts";
import { wasmDevice } from "../../kernels/wasm_device.ts";
import { assertClose } from "../kit.ts";
import { forward, statistics, trainBackward } from "../oracle.ts";
import { normalArray } from "../random.ts";
import { type Arr, type JaxModule, loadJax } from "./load_jax.ts";

/** jax-js has workers of its own, which live as long as the process. */
const SANITIZE = { sanitizeOps: false, sanitizeResources: false };

function test(name: string, body: (jax: JaxModule) => Promise<void>): void {
  Deno.test({
    name: `jax-js wasm: ${name}`,
    ...SANITIZE,
    fn: async () => {
      const jax = await loadJax("wasm");
      assert(jax);
      await body(jax);
    },
  });
}

const product = (shape: readonly number[]) => shape.reduce((all, each) => all * each, 1);

/** An array of jax-js of numbers, or of none. */
function arrayOf(jax: JaxModule, values: Float32Array, shape: readonly number[]): Arr {
  const options = { shape: [...shape], device: "wasm" as const };
  return values.length === 0
    ? jax.numpy.zeros([...shape], options)
    : jax.numpy.array(Float32Array.from(values), options);
}

/** A batch cut along its first axis. */
const cases = fc.record({
  counts: fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 4 }),
  inner: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 }),
  axis: fc.integer({ min: 1, max: 4 }),
  fromEnd: fc.boolean(),
  gamma: fc.boolean(),
  beta: fc.boolean(),
  seed: fc.nat(10_000),
}).map(({ axis, ...rest }) => ({ ...rest, axis: 1 + (axis - 1) % rest.inner.length }));

test("y, gradients and running statistics are the formula's, for any shape, axis and partition", async (jax) => {
  await using device = await wasmDevice();
  await fc.assert(
    fc.asyncProperty(cases, async ({ counts, inner, axis, fromEnd, gamma, beta, seed }) => {
      const rows = counts.reduce((all, count) => all + count, 0);
      const channels = inner[axis - 1];
      const positions = product(inner.slice(axis));
      const each = product(inner);
      fc.pre(rows * each / channels >= 2);
      const [x, dy] = [seed, seed + 1].map((seed) => normalArray(rows * each, seed, 1, 2));
      const weight = gamma ? normalArray(channels, seed + 2, 1) : null;
      const bias = beta ? normalArray(channels, seed + 3) : null;
      let from = 0;
      const starts = counts.map((count) => each * ((from += count) - count));
      const results = await runRanks(counts.length, async (group) => {
        const start = starts[group.rank];
        const shape = [counts[group.rank], ...inner];
        const part = (values: Float32Array) =>
          arrayOf(jax, values.subarray(start, start + product(shape)), shape);
        const norm = syncBatchNorm(jax, {
          ...{ device, group },
          axis: fromEnd ? axis - shape.length : axis,
        });
        const { y, pullback, state } = await norm(
          part(x),
          weight && arrayOf(jax, weight, [channels]),
          bias && arrayOf(jax, bias, [channels]),
          initBatchNorm(device, channels, { affine: false }),
        );
        const [dh, dgamma, dbeta] = await pullback(part(dy));
        pullback.dispose();
        assert.deepEqual([y.shape, dh.shape], [shape, shape]);
        const { runningMean, runningVar } = await stateToHost(device, state);
        device.free(...[state.runningMean, state.runningVar].flatMap((own) => own ?? []));
        const read = async (array: Arr | null) => array && [...await array.data()];
        const sums = await psum(jax, [
          dgamma ?? [],
          dbeta ?? [],
          arrayOf(jax, bias ?? Float32Array.of(0), [bias ? channels : 1]),
        ], group);
        const [totalGamma, totalBeta] = sums as readonly (Arr | readonly never[])[];
        return {
          y: await read(y),
          dh: await read(dh),
          dgamma: gamma ? await read(totalGamma as Arr) : null,
          dbeta: beta ? await read(totalBeta as Arr) : null,
          ...{ runningMean, runningVar },
        };
      });
      const batch = { values: x, channels, inner: positions };
      const affine = { weight, bias, eps: 1e-5 };
      const stats = statistics(batch);
      const expected = trainBackward(batch, dy, affine);
      // Two values of a channel may lie close together, so that 1/sqrt(variance + eps) is up to 300.
      const near = { absolute: 2e-4, relative: 2e-4 };
      const whole = (name: "y" | "dh") => results.flatMap((result) => result[name] ?? []);
      assertClose(whole("y"), forward(batch, stats, affine), near, "y");
      assertClose(whole("dh"), expected.gradInput, near, "dh");
      for (const { dgamma, dbeta, runningMean, runningVar } of results) {
        if (dgamma) assertClose(dgamma, expected.gradWeight, near, "dgamma");
        if (dbeta) assertClose(dbeta, expected.gradBias, near, "dbeta");
        const unbiased = stats.count / (stats.count - 1);
        const old = stats.variance.map((own) => 0.9 + 0.1 * own * unbiased);
        assertClose(runningVar ?? [], old, { absolute: 1e-6, relative: 1e-6 }, "running variance");
        const means = stats.mean.map((own) => 0.1 * own);
        assertClose(runningMean ?? [], means, { absolute: 1e-6, relative: 1e-6 }, "running mean");
      }
    }),
    { numRuns: 30, seed: 23 },
  );
});

/** A handle on a device that counts the arrays that are alive. */
function counting<A>(device: Device<A>) {
  const alive = new Set<A>();
  const returned = (result: unknown) =>
    arraysIn(device, result).forEach((array) => alive.add(array));
  const disown = (array: A) => void alive.delete(array);
  return { alive, device: derive(device, { check: () => {}, returned, disown }) };
}

test("200 steps leave no array behind, on the device or in jax-js", async (jax) => {
  const { device, alive } = counting(referenceDevice());
  const [group] = inProcessGroup(1);
  const norm = syncBatchNorm(jax, { device, group });
  let state = initBatchNorm(device, 3, { affine: false });
  const [gamma, beta] = [1, 0].map((value) => arrayOf(jax, Float32Array.of(value, 1, 1), [3]));
  const values = normalArray(12, 1);
  for (let step = 0; step < 200; step++) {
    const [h, dy] = [values, values].map((own) => arrayOf(jax, own, [4, 3]));
    const linked = await norm(h, gamma.ref, beta.ref, state);
    state = linked.state;
    const gradients = await linked.pullback(dy);
    linked.pullback.dispose();
    linked.pullback.dispose(); // once is enough, and twice no error
    const evaluated = await norm.infer(linked.y.ref, gamma.ref, beta.ref, state);
    const made = [linked.y, ...gradients, evaluated];
    assert.deepEqual([h, dy].map(({ refCount }) => refCount), [0, 0]);
    assert.deepEqual(made.map(({ refCount }) => refCount), [1, 1, 1, 1, 1]);
    assert.deepEqual([gamma.refCount, beta.refCount, alive.size], [1, 1, 2]);
    jax.tree.dispose(made);
  }
  assert.equal(state.numBatchesTracked, 200);
});

test("a pullback may be called again until it is disposed", async (jax) => {
  const device = referenceDevice();
  const [group] = inProcessGroup(1);
  const norm = syncBatchNorm(jax, { device, group });
  const h = arrayOf(jax, Float32Array.of(1, 2, 6), [3, 1]);
  const dy = arrayOf(jax, Float32Array.of(1, 0, 0), [3, 1]);
  const gamma = arrayOf(jax, Float32Array.of(2), [1]);
  const state = initBatchNorm(device, 1, { affine: false });
  const { pullback } = await norm(h, gamma, null, state);
  const [first, second] = [await pullback(dy.ref), await pullback(dy.ref)];
  assert.deepEqual(await first[0].data(), await second[0].data());
  assert.equal(first[2], null);
  pullback.dispose();
  await assert.rejects(pullback(dy), { name: "TypeError", message: /the pullback was disposed/ });
  assert.equal(dy.refCount, 1);
});

test("norm.infer() normalizes with the running statistics, and keeps the state", async (jax) => {
  const device = referenceDevice();
  const group = { worldSize: 2, allReduce: () => Promise.reject(new Error("no collective")) };
  const { infer } = syncBatchNorm(jax, { device, group, axis: -1 });
  const state = { ...initBatchNorm(device, 2, { affine: false, eps: 0 }) };
  const running = {
    ...state,
    runningMean: device.upload(Float32Array.of(1, 2)),
    runningVar: device.upload(Float32Array.of(4, 16)),
  };
  const h = arrayOf(jax, Float32Array.of(3, 6, 1, 2), [1, 1, 2, 2]);
  const y = await infer(h, null, arrayOf(jax, Float32Array.of(0.5, 0), [2]), running);
  assert.deepEqual([...await y.data()], [1.5, 1, 0.5, 0]);
  assert.equal(h.refCount, 0);
  assert(device.owns(running.runningMean));
});

test("psum() adds trees of arrays over the ranks, and gives theirs up", async (jax) => {
  const totals = await runRanks(3, async (group) => {
    const value = Float32Array.of(group.rank + 1);
    const shared = arrayOf(jax, Float32Array.of(1, 2), [2]);
    const tree = { loss: arrayOf(jax, value, []), grads: [shared, { again: shared.ref }, []] };
    const empty = arrayOf(jax, new Float32Array(), [0, 2]);
    const total = await psum(jax, { ...tree, empty }, group);
    assert.deepEqual([tree.loss.refCount, shared.refCount, empty.refCount], [0, 0, 0]);
    const leaves = jax.tree.leaves(total);
    assert.deepEqual(leaves.map(({ shape }) => shape), [[], [2], [2], [0, 2]].map((each) => each));
    return await Promise.all(leaves.map(async (leaf) => [...await leaf.data()]));
  });
  assert.deepEqual(totals[0], [[6], [3, 6], [3, 6], []]);
  assert.deepEqual(totals[1], totals[0]);
});

test("parallel links take their places in the order of the program, whenever their numbers come", async (jax) => {
  const device = referenceDevice();
  const means = await runRanks(2, async (group) => {
    const norm = syncBatchNorm(jax, { device, group });
    const late = (array: Arr, ms: number): Arr =>
      new Proxy(array, {
        get: (target, name) => {
          if (name === "ref") return late(target.ref, ms);
          if (name === "data") {
            return () =>
              new Promise((resolve) => setTimeout(resolve, ms)).then(() => target.data());
          }
          const value = Reflect.get(target, name, target);
          return typeof value === "function" ? value.bind(target) : value;
        },
      });
    const start = () => initBatchNorm(device, 1, { affine: false, momentum: 1 });
    const h = (value: number) => arrayOf(jax, Float32Array.of(value, value + 2), [2, 1]);
    // On one rank the first is late, on the other the second.
    const links = await Promise.all([
      norm(late(h(0), 30 * group.rank), null, null, start()),
      norm(late(h(10), 30 - 30 * group.rank), null, null, start()),
    ]);
    const host = await Promise.all(links.map(({ state }) => stateToHost(device, state)));
    return host.map(({ runningMean }) => runningMean?.[0]);
  });
  assert.deepEqual(means, [[1, 11], [1, 11]]);
});

/** What a call may be given wrongly, and what it says. */
type Wrong = readonly [
  what: string,
  message: RegExp,
  given: (jax: JaxModule) => {
    readonly h?: unknown;
    readonly gamma?: unknown;
    readonly state?: (device: Device<ReferenceArray>) => BatchNormState<ReferenceArray>;
    readonly axis?: number;
  },
];

const WRONG: readonly Wrong[] = [
  ["an array that is gone", /h must be alive: it has 0 references left; pass h\.ref/, (jax) => {
    const h = jax.numpy.zeros([2, 3], { device: "wasm" });
    h.dispose();
    return { h };
  }],
  ["one reference for two", /h must be alive: it has 1 references left/, (jax) => {
    const h = jax.numpy.zeros([3], { device: "wasm" });
    return { h, gamma: h };
  }],
  ["a tracer", /h must be an array of jax-js, between two segments of vjp: .*within vjp/, (jax) => {
    let tracer: unknown;
    jax.vjp((_, x) => tracer = x.ref as Arr, [[], jax.numpy.zeros([2, 3], { device: "wasm" })]);
    return { h: tracer };
  }],
  ["numbers", /h must be an array of jax-js.*: current value is of class Array/, () => ({ h: [] })],
  ["nothing", /gamma must be an array of jax-js.*: current value is undefined/, () => ({
    gamma: undefined,
  })],
  ["float16", /h must be float32: current dtype is float16; cast it by astype/, (jax) => ({
    h: jax.numpy.zeros([2, 3], { device: "wasm" }).astype(jax.numpy.float16),
  })],
  ["another backend", /one backend of jax-js: gamma lies on cpu, another on wasm/, (jax) => ({
    gamma: jax.numpy.zeros([3], { device: "cpu" }),
  })],
  [
    "a backend that no device can take",
    /they lie on webgl of jax-js, and the device is ref/,
    () => ({
      h: { shape: [2, 3], dtype: "float32", device: "webgl", refCount: 1 },
      gamma: null,
    }),
  ],
  ["webgpu without the GPUDevice", /as of webgpuDevice\(jax\.getWebGPUDevice\(\)\): .*ref/, () => ({
    h: { shape: [2, 3], dtype: "float32", device: "webgpu", refCount: 1 },
    gamma: null,
  })],
  ["a gamma of another shape", /shape of gamma must be \(3\): current shape is \(2\)/, (jax) => ({
    gamma: jax.numpy.zeros([2], { device: "wasm" }),
  })],
  ["a state of other channels", /as many channels as h along axis: .* 2 and 3/, () => ({
    state: (device) => initBatchNorm(device, 2, { affine: false }),
  })],
  ["a state with a weight", /must have no weight and bias.*\{ affine: false \}/, () => ({
    state: (device) => initBatchNorm(device, 3),
  })],
  ["an axis that is none", /axis 2 be one of its axes: current shape is \(2, 3\)/, () => ({
    axis: 2,
  })],
  ["a rank of 1", /h must have a rank of 2 or more/, (jax) => ({
    h: jax.numpy.zeros([3], { device: "wasm" }),
  })],
];

test("a wrong call is an error on every rank, and has allocated and given up nothing", async (jax) => {
  for (const [what, message, wrong] of WRONG) {
    const { device, alive } = counting(referenceDevice());
    const told = await runRanks(2, async (group) => {
      const given = group.rank === 1 ? wrong(jax) : {};
      const { axis = 1, state: make } = given;
      const norm = syncBatchNorm(jax, { device, group, axis });
      const h = jax.numpy.zeros([2, 3], { device: "wasm" });
      const gamma = jax.numpy.zeros([3], { device: "wasm" });
      const state = make?.(device) ?? initBatchNorm(device, 3, { affine: false });
      const arrays = { h, gamma, ...given } as { h: Arr; gamma: Arr };
      await group.barrier();
      const before = alive.size;
      const error = await norm(arrays.h, arrays.gamma, null, state).then(
        () => null,
        (error) => error,
      );
      await group.barrier();
      assert.equal(alive.size, before, what);
      assert(device.owns(state.runningMean) && h.refCount === 1, what);
      // The group is as good as before.
      assert.deepEqual(await group.allReduce(Float64Array.of(1), sum), Float64Array.of(2));
      return error;
    });
    for (const error of told) {
      assert(isCollectiveError(error, "rankFailed"), `${what}: ${error}`);
      assert.match((error.cause as Error).message, message, what);
    }
  }
});

test("what the batch norm is made of is checked when it is made", async (jax) => {
  await Promise.resolve();
  const device = referenceDevice();
  const [group] = inProcessGroup(1);
  const make = (...given: unknown[]) => () =>
    syncBatchNorm(...given as Parameters<typeof syncBatchNorm>);
  const wrong: readonly (readonly [() => unknown, RegExp])[] = [
    [make({}, { device, group }), /first argument must be the module of jax-js/],
    [make(device, { device, group }), /first argument must be the module of jax-js/],
    [make(jax, { device, group, axes: 1 }), /options may be device, group, axis: .*"axes"/],
    [make(jax, { group }), /effects must be \{ device \}/],
    [make(jax, { device }), /group must be \{ worldSize, allReduce \}/],
  ];
  for (const [call, message] of wrong) assert.throws(call, message);
});

test("gradients that are none are refused on every rank", async (jax) => {
  const device = referenceDevice();
  const attempt = (body: (group: ProcessGroup) => Promise<unknown>) =>
    runRanks(2, (group) => body(group).then(() => null, (error: unknown) => error));
  const errors = await attempt(async (group) => {
    const norm = syncBatchNorm(jax, { device, group });
    const state = initBatchNorm(device, 3, { affine: false });
    const { pullback } = await norm(
      jax.numpy.zeros([2, 3], { device: "wasm" }),
      ...[null, null] as const,
      state,
    );
    const shape = group.rank === 0 ? [2, 3] : [3, 2];
    return await pullback(jax.numpy.zeros(shape, { device: "wasm" }));
  });
  errors.push(...await attempt((group) => psum(jax, group.rank === 0 ? [] : {}, group)));
  errors.push(...await attempt((group) => psum(jax, group, group)));
  for (const error of errors) assert(isCollectiveError(error, "rankFailed"), `${error}`);
  const causes = errors.map((error) => ((error as Error).cause as Error).message);
  assert.match(causes[0], /shape of dy must be \(2, 3\): current shape is \(3, 2\)/);
  assert.match(causes[2], /array of jax-js/);
});
