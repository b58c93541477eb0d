/** Special values of running statistics, weight and bias, and what running statistics become. */

import assert from "node:assert/strict";
import {
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  type BatchNormState,
  type Device,
  stateFromHost,
  stateToHost,
  tensor,
  toArray,
} from "../../mod.ts";
import { type DeviceKit, EPSILON, testsOf } from "../kit.ts";
import {
  assertValues,
  counted,
  LEAST,
  LEAST_NORMAL,
  MAX,
  overflows,
  pack,
  underflows,
  unpack,
} from "./adversarial_values.ts";

const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

/** What every channel holds, and the gradient of its output. */
const X = [1, -0, inf, -3, nan, Math.fround(1e-40)];
const DY = [1, 2, 0, -1, 0, 3];

/** The vectors of a state, a number each, as float32. */
interface Channel {
  readonly weight: number;
  readonly bias: number;
  readonly mean: number;
  readonly variance: number;
}

const channel = (special: Partial<Channel>): Channel => ({
  ...{ weight: 1, bias: 7, mean: 0.5, variance: 4 },
  ...special,
});
const CHANNELS: readonly Channel[] = [
  { variance: 0 },
  { variance: 0, mean: -0, bias: -0 },
  { variance: LEAST },
  { variance: LEAST_NORMAL / 2 },
  { variance: LEAST_NORMAL },
  { variance: Math.fround(3e38) },
  { variance: MAX, mean: -MAX },
  { variance: inf },
  { variance: nan },
  { variance: -1 },
  { mean: -0 },
  { mean: inf },
  { mean: nan },
  {},
  { weight: 0 },
  { weight: -0, bias: -0 },
  { weight: LEAST },
  { weight: MAX, bias: 0 },
  { weight: inf },
  { weight: -inf },
  { weight: inf, variance: 0 },
  { weight: inf, variance: inf },
  { weight: nan },
  { bias: inf },
  { bias: -inf },
  { bias: nan },
].map(channel);

/** Registers the tests of special states for a device. */
export function evaluationSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("special running statistics, weights and biases in evaluation", async (device) => {
    for (const [eps, format] of [[0, "channelsLast"], [1e-5, "channelsFirst"]] as const) {
      const C = CHANNELS.length;
      const state = stateOf(device, CHANNELS, eps, 0.1);
      const of = (values: readonly number[]) =>
        tensor(device, pack(CHANNELS.map(() => values), format), [2, C, 3], { format });
      const [input, dy] = [of(X), of(DY)];
      const y = unpack(
        await toArray(device, batchNormInfer(state, input, { device })),
        format,
      );
      const back = batchNormInferBackward(state, input, dy, { device });
      const dx = unpack(await toArray(device, back.gradInput), format);
      const gradWeight = await device.download(back.gradWeight!);
      const gradBias = await device.download(back.gradBias!);
      CHANNELS.forEach((special, c) => {
        const { weight, bias, mean, variance } = special;
        const what = `${JSON.stringify(Object.entries(special).map(String))}, eps ${eps}`;
        const finite = [weight, bias, mean, variance, variance + 1].every((v) =>
          v > -inf && v < inf
        );
        if (!kit.nonFinite && (!finite || variance < 0)) return;
        const taken = counted(variance, eps, kit);
        const s = taken + eps === 0 ? 0 : 1 / Math.sqrt(taken + eps);
        const unit = kit.ulps * EPSILON.float32;
        const least = (kit.subnormals ? kit.ulps * LEAST : LEAST_NORMAL) * (1 + s);
        const scale = Math.abs(weight * s);
        const seen = (values: readonly number[]) =>
          kit.nonFinite ? values : values.filter((_, i) => Number.isFinite(X[i]));
        const expected = (values: readonly number[], slack: (i: number) => number) => ({
          values: seen(values),
          slack: seen(values.map((_, i) => unit * slack(i) + least * (1 + Math.abs(weight)))),
        });
        const sizes = X.map((x) => scale * (Math.abs(x) + Math.abs(mean)) + Math.abs(bias));
        const wanted = X.map((x) => (x - mean) * s * weight + bias);
        // Infinity times 0 is NaN, and what that is may depend on the order of factors.
        if (Math.abs(weight) === inf) {
          assert(!y[c].some(Number.isFinite), `${what}: y ${y[c]}`);
        } else {
          // So may an infinity times a factor that float32 does not hold.
          const lost = seen(X).map((x) => !Number.isFinite(x) && underflows(weight * s, kit));
          const values = expected(wanted, (i) => sizes[i]);
          assertValues(seen(y[c]), { ...values, lost }, `${what}: y`);
        }
        const slopes = DY.map((g) => weight * s * g);
        assertValues(seen(dx[c]), expected(slopes, (i) => scale * Math.abs(DY[i])), `${what}: dx`);
        const terms = DY.map((g, i) => g === 0 ? 0 : g * (X[i] - mean));
        const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
        const slack = [unit * s * sum(terms.map(Math.abs)) + 9 * least];
        // NaN and infinity of x are under the mask of dy, on every device where there may be any.
        if (kit.nonFinite) {
          assertValues([gradWeight[c]], { values: [s * sum(terms)], slack }, `${what}: gradWeight`);
        }
        assert.equal(gradBias[c], 5, `${what}: gradBias`);
      });
    }
  });

  test("special weights and biases in training", async (device) => {
    const x = [1, 2, 3, 2, 2, 2];
    // Deviations -1, 0, 1, 0, 0, 0 of a mean of 2, divided by the root of 1/3.
    const root = Math.sqrt(3);
    const unit = kit.ulps * EPSILON.float32;
    const rows: readonly (readonly [Partial<Channel>, readonly number[] | null])[] = [
      [{ weight: 0 }, [7, 7, 7, 7, 7, 7]],
      [{ weight: -0, bias: -0 }, [0, 0, 0, 0, 0, 0]],
      [{ weight: 1e38, bias: 0 }, [-root, 0, root, 0, 0, 0].map((v) => v * Math.fround(1e38))],
      [{ weight: -2, bias: 1 }, [1 + 2 * root, 1, 1 - 2 * root, 1, 1, 1]],
      ...(kit.nonFinite
        ? [
          [{ weight: MAX, bias: 0 }, [-inf, 0, inf, 0, 0, 0]],
          [{ weight: nan }, [nan, nan, nan, nan, nan, nan]],
          [{ bias: inf }, [inf, inf, inf, inf, inf, inf]],
          [{ bias: nan }, [nan, nan, nan, nan, nan, nan]],
          [{ weight: -inf }, null],
        ] as const
        : []),
    ];
    const channels = rows.map(([special]) => channel(special));
    const state = stateOf(device, channels, 0, 0.1);
    const input = tensor(device, pack(rows.map(() => x), "channelsLast"), [2, rows.length, 3], {
      format: "channelsLast",
    });
    const forward = batchNormForward(state, input, { device });
    const y = unpack(await toArray(device, forward.output), "channelsLast");
    const { runningMean, runningVar } = await stateToHost(device, forward.state);
    rows.forEach(([special, values], c) => {
      const what = JSON.stringify(Object.entries(special).map(String));
      const { weight, bias } = channels[c];
      if (values === null) assert(!y[c].some(Number.isFinite), `${what}: ${y[c]}`);
      else {
        const slack = values.map(() => unit * (4 * Math.abs(weight) + Math.abs(bias)));
        const lost = values.map(() => overflows(weight * root, kit));
        assertValues(y[c], { values, slack, lost }, what);
      }
      // Whatever weight and bias are: 0.9 * 0.5 + 0.1 * 2 and 0.9 * 4 + 0.1 * 0.4.
      assertValues([runningMean![c]], { values: [0.65], slack: [unit] }, `${what}: runningMean`);
      assertValues([runningVar![c]], { values: [3.64], slack: [4 * unit] }, `${what}: runningVar`);
    });
  });

  if (!kit.nonFinite) return;

  test("running statistics that are no numbers stay so, whatever the momentum", async (device) => {
    const ordinary = [1, 2, 3, 4, 5, 6];
    for (const momentum of [0, 0.1, 1, null]) {
      const channels = [{ mean: nan, variance: nan }, {}, {}, { mean: inf, variance: inf }];
      const state = stateOf(device, channels.map(channel), 1e-5, momentum);
      const x = [ordinary, [1, nan, 3, 4, 5, 6], ordinary, ordinary];
      const input = tensor(device, pack(x, "channelsFirst"), [2, 4, 3]);
      const { state: next } = batchNormForward(state, input, { device });
      const { runningMean, runningVar } = await stateToHost(device, next);
      // 0 * NaN is NaN, and 0 * infinity too.
      const kept = momentum === 1 || momentum === null ? nan : inf;
      for (
        const [vector, observed, old] of [[runningMean!, 3.5, 0.5], [runningVar!, 3.5, 4]] as const
      ) {
        const factor = momentum ?? 1;
        const values = [nan, nan, (1 - factor) * old + factor * observed, kept];
        const slack = values.map(() => 4 * kit.ulps * EPSILON.float32);
        assertValues(vector, { values, slack }, `momentum ${momentum}`);
      }
    }
  });
}

function stateOf<A>(
  device: Device<A>,
  channels: readonly Channel[],
  eps: number,
  momentum: number | null,
): BatchNormState<A> {
  const vector = (name: keyof Channel) => Float32Array.from(channels, (special) => special[name]);
  return stateFromHost(device, {
    ...{ numFeatures: channels.length, eps, momentum, numBatchesTracked: 0 },
    ...{ weight: vector("weight"), bias: vector("bias") },
    ...{ runningMean: vector("mean"), runningVar: vector("variance") },
  });
}
