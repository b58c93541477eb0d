/** The ways in and out of Keras and Flax: inverses, defaults, axes, and what is refused. */

import assert from "node:assert/strict";
import fc from "fast-check";
import type { BatchNormState, Format } from "../../mod.ts";
import {
  type ExportBatchNormOptions,
  fromFlax,
  fromKeras,
  type ImportBatchNormOptions,
  toFlax,
  toKeras,
} from "../../lib/checkpoint.ts";
import { complement } from "../../lib/checkpoint/frameworks/decay.ts";
import { FLAX, KERAS } from "./conventions.ts";

const CONVENTIONS = [KERAS, FLAX];

const finite = fc.float({ noNaN: true, noDefaultInfinity: true });
/** Far from where float32 loses places or overflows. */
const positive = fc.float({ min: Math.fround(1e-30), max: Math.fround(1e30), noNaN: true });

/** Any state that has a counterpart. */
const states = fc.integer({ min: 1, max: 5 }).chain((numFeatures) => {
  const vector = (value: fc.Arbitrary<number>) =>
    fc.array(value, { minLength: numFeatures, maxLength: numFeatures }).map((v) =>
      Float32Array.from(v)
    );
  return fc.record({
    numFeatures: fc.constant(numFeatures),
    eps: fc.double({ min: 0, max: 1, noNaN: true }),
    momentum: fc.integer({ min: 0, max: 1e6 }).map((parts) => parts / 1e6),
    weight: fc.option(vector(finite)),
    bias: fc.option(vector(finite)),
    runningMean: vector(finite),
    runningVar: vector(positive),
    numBatchesTracked: fc.constant(0),
  }, { noNullPrototype: true });
});
const formats = fc.constantFrom<Format>("channelsFirst", "channelsLast");
const counts = fc.integer({ min: 2, max: 2 ** 31 });

/** Distance of positive float32 numbers in units of the last place. */
function ulpsApart(a: Float32Array, b: Float32Array): number {
  const bits = (vector: Float32Array) => new Int32Array(Float32Array.from(vector).buffer);
  const [left, right] = [bits(a), bits(b)];
  return Math.max(...left.map((value, i) => Math.abs(value - right[i])));
}

for (const { name, names, read, write } of CONVENTIONS) {
  Deno.test(`from${name}() is the inverse of to${name}(), bit for bit where count is null`, () => {
    fc.assert(fc.property(states, formats, (state, format) => {
      const { vectors, config } = write(state, { count: null, format });
      const { momentum, epsilon, axis } = config as Record<string, number>;
      const back = read(vectors, { count: null, momentum, epsilon, axis });
      assert.deepEqual(back, { state, format });
      const { vectors: again } = write(back.state, { count: null, format });
      assert.deepEqual(again, vectors);
    }));
  });

  Deno.test(`from${name}() and to${name}() return a converted variance within a unit of the last place`, () => {
    fc.assert(fc.property(states, counts, (state, count) => {
      const [, , , variance] = names;
      const options = { count, momentum: complement(state.momentum), epsilon: state.eps };
      const there = write(state, { count }).vectors;
      const { state: back } = read(there, options);
      assert(ulpsApart(back.runningVar!, state.runningVar) <= 1);
      assert.deepEqual({ ...back, runningVar: null }, { ...state, runningVar: null });
      const given = { ...there, [variance]: state.runningVar };
      const { vectors } = write(read(given, options).state, { count });
      assert(ulpsApart(vectors[variance]!, state.runningVar) <= 1);
    }));
  });

  Deno.test(`from${name}() and to${name}() round a converted variance once, from float64`, () => {
    fc.assert(fc.property(states, counts, (state, n) => {
      const [, , , variance] = names;
      const { vectors } = write(state, { count: n });
      const biased = state.runningVar.map((v) => Math.fround(v * (n - 1) / n));
      assert.deepEqual(vectors[variance], biased);
      const { state: back } = read(vectors, { count: n });
      assert.deepEqual(back.runningVar, biased.map((v) => Math.fround(v * n / (n - 1))));
    }));
    // Times 7 / 6 this is 14680074.5, a tie; times the float64 next to 7 / 6 it is above.
    const given = { [names[2]]: Float32Array.of(0), [names[3]]: Float32Array.of(12582921) };
    assert.deepEqual(read(given, { count: 7 }).state.runningVar, Float32Array.of(14680074));
  });

  Deno.test(`from${name}() and to${name}() keep what they are given and share no memory with it`, () => {
    fc.assert(fc.property(states, fc.option(counts), (state, count) => {
      const copy = structuredClone(state);
      const { vectors } = write(state, { count });
      const copied = structuredClone(vectors);
      const { state: back } = read(vectors, { count });
      assert.deepEqual([state, vectors], [copy, copied]);
      const memory = [state, vectors, back].flatMap((record) =>
        Object.values(record).filter((value) => value instanceof Float32Array)
      ).map(({ buffer }) => buffer);
      assert.equal(new Set(memory).size, memory.length);
    }));
  });
}

Deno.test("what comes from and goes to Keras and Flax is frozen, inner records too", () => {
  const one = Float32Array.of(1);
  const { state } = fromKeras({ moving_mean: one, moving_variance: one }, { count: null });
  const [keras, flax] = [toKeras(state, { count: null }), toFlax(state, { count: 4 })];
  const read = [
    fromKeras(keras.weights, { count: 4 }),
    fromFlax(flax.variables, { count: null }),
  ];
  const written = [keras, keras.weights, keras.config, flax, flax.variables, flax.config];
  for (const made of [state, ...written, ...read, ...read.map(({ state }) => state)]) {
    assert(Object.isFrozen(made));
  }
});

Deno.test("complement() is exact and its own inverse for weights of up to 15 decimal places", () => {
  const usual = [[0.9, 0.1], [0.99, 0.01], [0.999, 0.001], [0.997, 0.003], [0.9997, 0.0003]];
  for (const [theirs, expected] of [...usual, [1, 0], [0.5, 0.5], [0.999999999999999, 1e-15]]) {
    assert.equal(complement(theirs), expected);
    assert.equal(complement(expected), theirs);
  }
  const places = fc.integer({ min: 1, max: 15 }).chain((digits) =>
    fc.tuple(fc.constant(digits), fc.bigInt({ min: 0n, max: 10n ** BigInt(digits) }))
  );
  fc.assert(
    fc.property(places, ([digits, parts]) => {
      const [weight, rest] = [parts, 10n ** BigInt(digits) - parts].map((n) =>
        Number(`${n}e-${digits}`)
      );
      assert.equal(complement(weight), rest);
      assert.equal(complement(rest), weight);
    }),
    { numRuns: 5000 },
  );
});

Deno.test("complement() gives any weight from 0.5 on back, and loses no more than float64's place at 1", () => {
  fc.assert(
    fc.property(fc.double({ min: 0.5, max: 1, noNaN: true }), (weight) => {
      assert.equal(complement(complement(weight)), weight);
    }),
    { numRuns: 5000 },
  );
  fc.assert(fc.property(fc.double({ min: 0, max: 1, noNaN: true }), (weight) => {
    assert(Math.abs(complement(complement(weight)) - weight) <= 2 ** -53);
  }));
  // As it stands in files: float32 0.99 and 0.999.
  for (const weight of [0.9900000095367432, 0.9990000128746033]) {
    assert.equal(complement(complement(weight)), weight);
  }
});

Deno.test("fromKeras() and fromFlax() have the defaults of their frameworks", () => {
  for (const { read, names: [, , mean, variance], epsilon } of CONVENTIONS) {
    const one = Float32Array.of(1);
    const { state, format } = read({ [mean]: one, [variance]: one }, { count: null });
    assert.deepEqual(state, {
      numFeatures: 1,
      eps: epsilon,
      momentum: 0.01,
      weight: null,
      bias: null,
      runningMean: one,
      runningVar: one,
      numBatchesTracked: 0,
    });
    assert.equal(format, "channelsLast");
    assert(Object.isFrozen(state));
    const counted = read({ [mean]: one, [variance]: one }, { count: null, numBatchesTracked: 7 });
    assert.equal(counted.state.numBatchesTracked, 7);
  }
});

Deno.test("fromKeras() and fromFlax() tell the format of an axis, given the rank where it takes it", () => {
  const cases: readonly (readonly [number, number | undefined, Format])[] = [
    [-1, undefined, "channelsLast"],
    [1, undefined, "channelsFirst"],
    [-1, 4, "channelsLast"],
    [3, 4, "channelsLast"],
    [2, 3, "channelsLast"],
    [1, 4, "channelsFirst"],
    [-3, 4, "channelsFirst"],
    [-2, 3, "channelsFirst"],
    [1, 2, "channelsFirst"],
    [-1, 2, "channelsLast"],
  ];
  for (const { read, names: [, , mean, variance] } of CONVENTIONS) {
    const vectors = { [mean]: Float32Array.of(0), [variance]: Float32Array.of(1) };
    for (const [axis, rank, format] of cases) {
      assert.equal(read(vectors, { count: null, axis, rank }).format, format);
    }
    for (
      const [axis, rank] of [[0, undefined], [3, undefined], [-2, 4], [2, 4], [4, 4], [1.5, 4]]
    ) {
      assert.throws(
        () => read(vectors, { count: null, axis, rank }),
        new RegExp(
          `RangeError: Cannot convert .* as axis must be 1, or -1 or rank - 1 .*: current value is ${axis} `,
        ),
      );
    }
  }
});

/** A call that must fail, and the end of its message. */
type Refused = readonly [
  kind: typeof TypeError | typeof RangeError,
  end: string,
  options: unknown,
  changes?: Readonly<Record<string, unknown>>,
];

function assertRefuses(
  call: (options: unknown, changes: Readonly<Record<string, unknown>>) => unknown,
  start: string,
  cases: readonly Refused[],
): void {
  for (const [kind, end, options, changes = {}] of cases) {
    assert.throws(() => call(options, changes), (error) => {
      assert(error instanceof kind, `${error}`);
      assert.equal(error.message.slice(0, start.length), start);
      assert.equal(error.message.slice(-end.length), end);
      return true;
    });
  }
}

const NO_COUNT = "or null to take the running variance as it is: current value is";

for (const { name, read, names } of CONVENTIONS) {
  Deno.test(`from${name}() takes an axis in a list, as Keras 2 saves it`, () => {
    const [, , mean, variance] = names;
    const given = { [mean]: Float32Array.of(0), [variance]: Float32Array.of(1) };
    const formatOf = (axis: unknown, rank?: number) =>
      read(given, { count: null, axis, rank } as ImportBatchNormOptions).format;
    assert.equal(formatOf([3], 4), "channelsLast");
    assert.equal(formatOf([-1]), "channelsLast");
    assert.equal(formatOf([1]), "channelsFirst");
    assert.throws(() => formatOf([3]), /axis must be 1, or -1 or rank - 1 .* is 3 with no rank/);
    assert.throws(
      () => formatOf([]),
      /axis must be a number, or a list of one: current value is \[\]/,
    );
  });

  Deno.test(`from${name}() says what does not fit`, () => {
    const [scale, , mean, variance] = names;
    // Left out without a word, the other framework's vector would be a layer that has none.
    const foreign = name === "Keras" ? "scale" : "gamma";
    const given = { [mean]: Float32Array.of(0, 0), [variance]: Float32Array.of(1, 1) };
    const three = new Float32Array(3);
    const wanted = "must be a Float32Array: current value is";
    const lengths = `and ${mean} must be equal: current values are 3 and 2`;
    const count = null;
    assertRefuses(
      (options, changes) => read({ ...given, ...changes }, options as ImportBatchNormOptions),
      `Cannot convert the batch norm of ${name} as `,
      [
        [TypeError, `${NO_COUNT} undefined`, undefined],
        [TypeError, `${NO_COUNT} undefined`, {}],
        [TypeError, `${NO_COUNT} "128"`, { count: "128" }],
        ...[1, 0, -2, 2.5, NaN, Infinity].map((count) =>
          [RangeError, `${NO_COUNT} ${count}`, { count }] as const
        ),
        ...[-0.1, 1.1, NaN, null].map((momentum) =>
          [RangeError, `in [0, 1]: current value is ${momentum}`, { count, momentum }] as const
        ),
        ...[-1, NaN, Infinity].map((epsilon) =>
          [RangeError, `finite and >= 0: current value is ${epsilon}`, { count, epsilon }] as const
        ),
        [RangeError, "an integer >= 0: current value is -1", { count, numBatchesTracked: -1 }],
        [RangeError, "an integer >= 0: current value is 0.5", { count, numBatchesTracked: 0.5 }],
        [TypeError, "axis must be a number, or a list of one: current value is [1, 2]", {
          count,
          axis: [1, 2],
        }],
        [RangeError, "rank must be an integer >= 2: current value is 1", { count, rank: 1 }],
        [TypeError, `${mean} ${wanted} undefined`, { count }, { [mean]: undefined }],
        [TypeError, `${mean} ${wanted} of class Array`, { count }, { [mean]: [1, 2] }],
        [TypeError, `${variance} ${wanted} null`, { count }, { [variance]: null }],
        [TypeError, `${mean} ${wanted} a function`, { count }, { [mean]: () => 1 }],
        ...[`${scale}:0`, foreign].map((other) =>
          [
            TypeError,
            `as its vectors must be named ${names.join(", ")}: current name is "${other}"`,
            { count },
            { [other]: Float32Array.of(1, 1) },
          ] as const
        ),
        [TypeError, `${scale} ${wanted} 0`, { count }, { [scale]: 0 }],
        [TypeError, `${scale} ${lengths}`, { count }, { [scale]: three }],
        [TypeError, `${variance} ${lengths}`, { count }, { [variance]: three }],
        [RangeError, `length of ${mean} is 0`, { count }, { [mean]: new Float32Array() }],
      ],
    );
    assert.throws(() => read(null, { count }), new RegExp(`${mean} ${wanted} undefined$`));
  });
}

for (const { name, write } of CONVENTIONS) {
  Deno.test(`to${name}() says what does not fit and what has no counterpart`, () => {
    const vector = Float32Array.of(1);
    const state = {
      numFeatures: 1,
      eps: 1e-5,
      momentum: 0.1,
      weight: vector,
      bias: null,
      runningMean: vector,
      runningVar: vector,
      numBatchesTracked: 3,
    };
    const [cumulative, running] = [
      `a cumulative average has no counterpart in ${name}: current value is null`,
      `running statistics, which each layer of ${name} has: current runningMean is null`,
    ];
    const foreign = "as stateToHost copies it from a device: current value is of class Object";
    const count = null;
    assertRefuses(
      (options, changes) =>
        write(
          { ...state, ...changes } as BatchNormState<Float32Array>,
          options as ExportBatchNormOptions,
        ),
      `Cannot convert the batch norm to ${name} `,
      [
        [TypeError, cumulative, { count }, { momentum: null }],
        [TypeError, running, { count }, { runningMean: null, runningVar: null }],
        [TypeError, "both be null: current runningVar is null", { count }, { runningVar: null }],
        [TypeError, `${NO_COUNT} undefined`, undefined],
        [TypeError, `${NO_COUNT} undefined`, {}],
        [RangeError, `${NO_COUNT} 1`, { count: 1 }],
        [TypeError, 'current value is "NHWC"', { count, format: "NHWC" }],
        [TypeError, "current values are 2 and 1", { count }, { weight: new Float32Array(2) }],
        [TypeError, foreign, { count }, { weight: {} }],
        [RangeError, "eps must be finite and >= 0: current value is -1", { count }, { eps: -1 }],
      ],
    );
  });
}
