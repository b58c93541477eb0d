/** Folding: against the layer and the batch norm one after the other, PyTorch's numbers, and what is refused. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { type BatchNormState, foldBatchNorm, type LinearLayer } from "../mod.ts";
import golden from "./checkpoint/golden/frameworks.json" with { type: "json" };
import { convolve, type Geometry, KINDS } from "./convolution.ts";
import { assertClose, EPSILON } from "./kit.ts";
import { normalArray } from "./random.ts";

type HostState = BatchNormState<Float32Array>;

const geometries: fc.Arbitrary<Geometry> = fc.constantFrom(
  ...Object.keys(KINDS) as (keyof typeof KINDS)[],
).chain((kind) => {
  const { axes, transposed } = KINDS[kind];
  const upTo = (max: number) => fc.integer({ min: 1, max });
  return fc.record({
    groups: axes === 0 ? fc.constant(1) : upTo(3),
    inputs: upTo(3),
    outputs: upTo(3),
    kernel: fc.tuple(upTo(axes === 2 ? 3 : 1), upTo(axes === 0 ? 1 : 3)),
    more: fc.tuple(fc.nat(axes === 2 ? 3 : 0), fc.nat(axes === 0 ? 0 : 3)),
    stride: upTo(2),
    // A transposed convolution takes its padding away.
    padding: fc.nat(axes === 2 && !transposed ? 1 : 0),
  }).map(({ more, ...rest }) => ({
    ...rest,
    kind,
    input: [rest.kernel[0] + more[0], rest.kernel[1] + more[1]] as const,
  }));
});

/** Which vectors there are. */
interface Presence {
  readonly scale: boolean;
  readonly offset: boolean;
  readonly bias: boolean;
}

const presence = fc.record({ scale: fc.boolean(), offset: fc.boolean(), bias: fc.boolean() });

/** A layer and a batch norm of random numbers; every third variance is 0. */
function draw(geometry: Geometry, { scale, offset, bias }: Presence, eps: number, seed: number) {
  const { kind, groups, inputs, outputs, kernel, input } = geometry;
  const { axes, transposed } = KINDS[kind];
  const numFeatures = groups * outputs;
  const extents = kernel.slice(2 - axes);
  const shape = transposed
    ? [groups * inputs, outputs, ...extents]
    : [numFeatures, inputs, ...extents];
  const vector = (nth: number, mean = 0) => normalArray(numFeatures, seed + nth, mean);
  const length = shape.reduce((total, extent) => total * extent, 1);
  const layer: LinearLayer = {
    weight: normalArray(length, seed),
    shape,
    bias: bias ? vector(1) : null,
    transposed,
  };
  const state: HostState = {
    numFeatures,
    eps,
    momentum: 0.1,
    weight: scale ? vector(2) : null,
    bias: offset ? vector(3) : null,
    runningMean: vector(4, 2),
    runningVar: vector(5).map((value, c) => (c + seed) % 3 === 0 ? 0 : value ** 2),
    numBatchesTracked: 1,
  };
  return { layer, state, x: normalArray(groups * inputs * input[0] * input[1], seed + 6) };
}

const abs = (vector: Float32Array) => vector.map(Math.abs);

Deno.test("foldBatchNorm() gives what the layer and the batch norm's evaluation give", () => {
  const epsilons = fc.constantFrom(0, 1e-5, 1e-3);
  fc.assert(
    fc.property(geometries, presence, epsilons, fc.nat(1e6), (geometry, present, eps, seed) => {
      const { layer, state, x } = draw(geometry, present, eps, seed);
      const folded = foldBatchNorm(state, layer, layer.shape.length);
      const actual = convolve(geometry, folded, x);
      const rounded = convolve(
        geometry,
        { weight: abs(folded.weight), bias: abs(folded.bias) },
        abs(x),
      );
      const unfolded = convolve(geometry, layer, x);
      const { weight, bias } = layer;
      const sizes = convolve(geometry, { weight: abs(weight), bias: bias && abs(bias) }, abs(x));
      unfolded.forEach((values, c) => {
        const [mean, variance] = [state.runningMean![c], state.runningVar![c] + eps];
        const scale = variance === 0 ? 0 : (state.weight?.[c] ?? 1) / Math.sqrt(variance);
        const offset = state.bias?.[c] ?? 0;
        const expected = values.map((value) => (value - mean) * scale + offset);
        // Each folded number is rounded to float32 once, by half an ulp; all else is float64, of at most 60 terms.
        const absolute = values.map((_, at) =>
          rounded[c][at] * EPSILON.float32 / 2 +
          100 * Number.EPSILON *
            ((sizes[c][at] + Math.abs(mean)) * Math.abs(scale) + Math.abs(offset))
        );
        assertClose(actual[c], expected, { absolute, relative: 0 }, `channel ${c}`);
      });
    }),
    { numRuns: 1000 },
  );
});

Deno.test("foldBatchNorm() keeps what it is given, shares no memory with it and freezes what it returns", () => {
  fc.assert(fc.property(geometries, presence, fc.nat(1e6), (geometry, present, seed) => {
    const { layer, state } = draw(geometry, present, 1e-5, seed);
    const copy = structuredClone({ layer, state });
    const folded = foldBatchNorm(state, layer, layer.shape.length);
    assert.deepEqual({ layer, state }, copy);
    assert(Object.isFrozen(folded) && Object.isFrozen(folded.shape));
    assert.deepEqual(folded.shape, layer.shape);
    const memory = [layer, state, folded].flatMap((record) =>
      Object.values(record).filter((value) => value instanceof Float32Array)
    ).map(({ buffer }) => buffer);
    assert.equal(new Set(memory).size, memory.length);
  }));
});

Deno.test("foldBatchNorm() of a constant channel without eps leaves the offset alone", () => {
  const layer = { weight: Float32Array.of(3, 4), shape: [2, 1], bias: Float32Array.of(5, 6) };
  const { weight, bias } = foldBatchNorm(
    host({ eps: 0, bias: Float32Array.of(7, 8), runningVar: Float32Array.of(0, 4) }),
    layer,
    2,
  );
  assert.deepEqual([...weight, ...bias], [0, 2, 7, 11]);
});

Deno.test("foldBatchNorm() of a pruned channel, weight 0, leaves the offset alone", () => {
  const layer = { weight: Float32Array.of(3, 4), shape: [2, 1], bias: null };
  const pruned = host({ weight: Float32Array.of(0, 2), bias: Float32Array.of(7, 8) });
  const { weight, bias } = foldBatchNorm(pruned, layer, 2);
  assert.deepEqual([...weight, ...bias], [0, 8, 7, 8]);
});

Deno.test("foldBatchNorm() folds a folded layer once more, along the same axis", () => {
  const tenfold = host({ weight: Float32Array.of(1, 10) });
  for (
    const [transposed, wanted] of [[true, [1, 100, 1, 100]], [false, [1, 1, 100, 100]]] as const
  ) {
    const weight = Float32Array.of(1, 1, 1, 1);
    const once = foldBatchNorm(tenfold, { weight, shape: [2, 2], bias: null, transposed }, 2);
    assert.deepEqual([...foldBatchNorm(tenfold, once, 2).weight], wanted);
  }
});

/** Weight and bias of a layer in the golden file. */
type Parameters = Readonly<Record<"weight" | "bias", readonly number[]>>;

/** A fold of the golden file, which has shortest decimals: not quite the float32. */
interface Fold {
  readonly kind: keyof typeof KINDS;
  readonly shape: readonly number[];
  readonly transposed: boolean;
  readonly layer: { readonly weight: readonly number[]; readonly bias: readonly number[] | null };
  readonly batchNorm: {
    readonly eps: number;
    readonly weight: readonly number[] | null;
    readonly bias: readonly number[] | null;
    readonly runningMean: readonly number[];
    readonly runningVar: readonly number[];
  };
  /** What PyTorch folds, in float32 and in float64; null where it cannot. */
  readonly torch: Parameters | null;
  readonly exact: Parameters | null;
  readonly groups: number;
  readonly stride: number;
  readonly padding: number;
  readonly x: readonly number[];
  /** Output of the layer and the batch norm, in float64. */
  readonly y: readonly number[];
}

/** Extents of each spatial axis of x, as in the generator. */
const EXTENT = 3;

for (const [index, fold] of (golden.folds as unknown as readonly Fold[]).entries()) {
  const { kind, shape, transposed, groups, torch, exact, batchNorm: { eps, ...vectors } } = fold;
  const vector = (values: readonly number[] | null) => values && Float32Array.from(values);
  const state: HostState = host({
    numFeatures: vectors.runningMean.length,
    eps,
    weight: vector(vectors.weight),
    bias: vector(vectors.bias),
    runningMean: Float32Array.from(vectors.runningMean),
    runningVar: Float32Array.from(vectors.runningVar),
  });
  const layer: LinearLayer = {
    weight: Float32Array.from(fold.layer.weight),
    shape,
    bias: vector(fold.layer.bias),
    // As a caller would leave it out.
    ...(transposed && { transposed }),
  };
  const folded = foldBatchNorm(state, layer, layer.shape.length);
  const what = `${kind} (${shape}), fold ${index}`;

  if (torch !== null && exact !== null) {
    Deno.test(`foldBatchNorm() folds what PyTorch folds: ${what}`, () => {
      const ulp = EPSILON.float32;
      // Both are float64, rounded once: a value beside a rounding boundary may fall on either side.
      for (const name of ["weight", "bias"] as const) {
        const wanted = Float32Array.from(exact[name]);
        assertClose(folded[name], wanted, { absolute: 0, relative: ulp }, `${name}, exact`);
      }
      // PyTorch's float32: sum of variance and eps, its root of 1 ulp, two products of half an ulp; ours rounds once.
      assertClose(folded.weight, Float32Array.from(torch.weight), {
        absolute: 0,
        relative: 3 * ulp,
      }, "weight");
      // The same and two sums, one of which may leave less than its terms.
      const absolute = Array.from(state.runningMean!, (mean, c) => {
        const scale = Math.abs(state.weight?.[c] ?? 1) / Math.sqrt(state.runningVar![c] + eps);
        const offset = Math.abs(state.bias?.[c] ?? 0);
        return ulp * (4 * Math.abs((layer.bias?.[c] ?? 0) - mean) * scale + offset);
      });
      assertClose(folded.bias, Float32Array.from(torch.bias), { absolute, relative: 0 }, "bias");
    });
  }

  Deno.test(`foldBatchNorm() gives the output of PyTorch's layer and batch norm: ${what}`, () => {
    const axes = KINDS[kind].axes;
    const extents = <T>(given: readonly T[], fill: T): [T, T] =>
      [
        ...Array.from({ length: 2 - axes }, () => fill),
        ...given,
      ] as [T, T];
    const [first, second, ...kernel] = shape;
    const geometry: Geometry = {
      kind,
      groups,
      inputs: transposed ? first / groups : second,
      outputs: transposed ? second : first / groups,
      kernel: extents(kernel, 1),
      input: extents(kernel.map(() => EXTENT), 1),
      stride: fold.stride,
      padding: fold.padding,
    };
    const x = Float32Array.from(fold.x);
    const sizes = convolve(
      geometry,
      { weight: abs(folded.weight), bias: abs(folded.bias) },
      abs(x),
    );
    const y = convolve(geometry, folded, x).flat();
    // Half an ulp for each folded number, and for PyTorch's output in the file.
    const absolute = sizes.flat().map((size) => size * EPSILON.float32 / 2);
    assertClose(y, Float32Array.from(fold.y), { absolute, relative: EPSILON.float32 / 2 }, "y");
  });
}

/** A batch norm of two channels that does nothing, but for what is said. */
function host(changes: Partial<HostState> = {}): HostState {
  return {
    numFeatures: 2,
    eps: 0,
    momentum: 0.1,
    weight: null,
    bias: null,
    runningMean: Float32Array.of(0, 0),
    runningVar: Float32Array.of(1, 1),
    numBatchesTracked: 0,
    ...changes,
  };
}
