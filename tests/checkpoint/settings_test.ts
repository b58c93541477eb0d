/** Settings of layers in the metadata of files. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  type Activation,
  convertSyncBatchNorm,
  freeze,
  initLayer,
  initLazyLayer,
  type Momentum,
  referenceDevice,
  stateToHost,
} from "../../mod.ts";
import {
  fromMetadata,
  fromStateDict,
  readSafetensors,
  toMetadata,
  toStateDict,
  writeSafetensors,
} from "../../lib/checkpoint.ts";
import { throwsLike } from "../kit.ts";

const device = referenceDevice();
const share = fc.double({ min: 0, max: 1, noNaN: true });

Deno.test("rules of momentum, running variance, eps, and a layer's own settings survive a file", () => {
  const plain = { noNullPrototype: true };
  const momentum: fc.Arbitrary<Momentum> = fc.oneof(
    share,
    fc.constant(null),
    fc.record({
      rule: fc.constant("step" as const),
      value: share,
      factor: share,
      every: fc.integer({ min: 1 }),
    }, plain),
    fc.record({
      rule: fc.constant("cosine" as const),
      from: share,
      to: share,
      steps: fc.integer({ min: 1 }),
    }, plain),
    fc.record(
      { rule: fc.constant("zeroDebiased" as const), value: fc.constantFrom(0.1, 1) },
      plain,
    ),
  );
  const ramp = { rule: "ramp", from: 1, to: 3, begin: 5, end: 9 } as const;
  const options = fc.record({
    momentum,
    eps: share,
    runningVariance: fc.constantFrom("biased" as const, "unbiased" as const),
    activation: fc.constantFrom<Activation>("relu", { negativeSlope: 0.01 }, { maxValue: 6 }),
    way: fc.constantFrom({}, { ghost: 3 }, { renorm: { rmax: ramp, dmax: 0.5 } }),
  }, { requiredKeys: ["way"], noNullPrototype: true });
  return fc.assert(
    fc.asyncProperty(options, fc.boolean(), async ({ way, ...rest }, frozen) => {
      const made = { a: { norm: initLayer(device, "batchNorm2d", 2, { ...rest, ...way }) } };
      const model = frozen ? freeze(made) : made;
      const file = writeSafetensors(await toStateDict(device, model), toMetadata(model));
      const { tensors, metadata } = readSafetensors(file);
      const other = freeze(
        convertSyncBatchNorm({ a: { norm: initLayer(device, "batchNorm2d", 2, { ghost: 7 }) } }),
      );
      const loaded = fromMetadata(fromStateDict(device, other, tensors).model, metadata).a.norm;
      const { processGroup, state, ...settings } = loaded;
      assert.equal(processGroup, "world", "the program's matter");
      const { processGroup: _, state: before, ...wanted } = model.a.norm;
      assert.deepEqual(settings, wanted);
      assert.deepEqual(await stateToHost(device, state), await stateToHost(device, before));
      const lazy = fromMetadata({ a: { norm: initLazyLayer("batchNorm2d") } }, metadata);
      const filled = fromStateDict(device, lazy, tensors).model as unknown as typeof model;
      assert.deepEqual(filled.a.norm.state.momentum, before.momentum);
      assert.equal(filled.a.norm.state.runningVariance, before.runningVariance);
    }),
    { numRuns: 50 },
  );
});

Deno.test("settings that are none, or another model's, are refused, and the model is kept", () => {
  const model = { norm: initLayer(device, "batchNorm1d", 2) };
  const load = (metadata: object) => () => fromMetadata(model, metadata as Record<string, string>);
  const text = (layers: unknown) => load({ "syncbn.layers": JSON.stringify(layers) });
  const kind = "batchNorm1d";
  throwsLike(load({ format: "pt" }), TypeError, /must have "syncbn\.layers", as of toMetadata/);
  throwsLike(load({ "syncbn.layers": "{" }), TypeError, /must be a record in JSON/);
  throwsLike(text([]), TypeError, /must be a record in JSON/);
  throwsLike(text({}), TypeError, /\("norm"\), which have none, and \(\), which are no layers/);
  throwsLike(
    text({ norm: { kind }, other: { kind } }),
    TypeError,
    /\("other"\), which are no layers/,
  );
  throwsLike(text({ norm: 1 }), TypeError, /at norm as its settings must be a record/);
  throwsLike(
    text({ norm: { kind, gain: 1 } }),
    TypeError,
    /at norm as settings may be kind.*"gain"/,
  );
  throwsLike(text({ norm: { kind: "batchNorm2d" } }), TypeError, /of the same kind: .*2d.*1d/);
  throwsLike(text({ norm: { kind, eps: -1 } }), RangeError, /at norm as eps must be finite/);
  throwsLike(
    text({ norm: { kind, momentum: { rule: "x" } } }),
    TypeError,
    /at norm as the rule of/,
  );
  throwsLike(text({ norm: { kind, ghost: 0 } }), RangeError, /at norm as ghost/);
  throwsLike(text({ norm: { kind, renorm: {} } }), RangeError, /at norm as rmax/);
  throwsLike(text({ norm: { kind, frozen: "x" } }), TypeError, /at norm as frozen must be/);
  const proto = load({
    "syncbn.layers": '{"norm":{"kind":"batchNorm1d","__proto__":{"ghost":2}}}',
  });
  throwsLike(proto, TypeError, /"__proto__"/);
  assert.deepEqual(fromMetadata(model, toMetadata(model)), model);
});
