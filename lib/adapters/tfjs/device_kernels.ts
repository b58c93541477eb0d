/**
 * The kernels of one of the library's devices, for tensors of tfjs: one copy onto the device and one back in each direction.
 *
 * @module
 */

import type { Device } from "../../device.ts";
import { DeviceError } from "../../errors.ts";
import { region } from "../../ownership.ts";
import { launchSecond } from "../../norm/second_sums.ts";
import { checkPass } from "../../norm/check_call.ts";
import { secondWire } from "../../norm/second_wire.ts";
import { tensor } from "../../tensor.ts";
import { formatOn, momentsWire, sumsWire } from "../../wire.ts";
import { elementsOf, tensorOf } from "./internals.ts";
import type { NormKernels, NormPass } from "./kernels.ts";
import type { View } from "./view.ts";
import type { TensorFlow, TfTensor } from "./framework.ts";

/** An array that can be read at once, as a Wasm device's are. */
export interface ReadableArray {
  /** The elements where they lie. */
  readonly elements: () => Float32Array | Float16Array;
}

/** The kernels of a device whose arrays can be read at once. Nothing stays on it between two calls. */
export function deviceKernels<A extends ReadableArray>(
  tf: TensorFlow,
  device: Device<A>,
): NormKernels {
  const put = (scope: Device<A>, values: TfTensor, view: View) =>
    tensor(scope, elementsOf(tf, values), view);
  const vector = (scope: Device<A>, values: TfTensor | null) =>
    values === null ? null : scope.upload(elementsOf(tf, values) as Float32Array);
  const affineOf = (scope: Device<A>, { gamma, beta, epsilon }: NormPass) => ({
    ...{ weight: vector(scope, gamma), bias: vector(scope, beta), eps: epsilon },
  });
  const take = (array: A, shape: readonly number[]) =>
    tensorOf(tf, array.elements() as Float32Array, shape);
  const inTurn = <R>(body: (scope: Device<A>) => R): R => {
    let result: R | undefined;
    // What leaves the region is tfjs's, so that all arrays are freed.
    region(device, (scope) => {
      result = body(scope);
    });
    return result as R;
  };

  const wires = {
    moments: formatOn(device, momentsWire),
    sums: formatOn(device, sumsWire),
  };
  /** No rows, so many channels: what a rank brings whose rows do not count. */
  const none = (scope: Device<A>, channels: number) => tensor(scope, [], [0, channels]);

  return Object.freeze<NormKernels>({
    wires,
    forward: (pass, reduce) =>
      inTurn((scope) => {
        const { x, view, counted } = pass;
        const made: { input?: ReturnType<typeof put> } = {};
        const total = reduce(() => {
          made.input = put(scope, x, view);
          const input = counted ? made.input : none(scope, view[1]);
          return readNow(scope, scope.moments({ input }));
        });
        if (x.size === 0) return x.clone();
        const input = made.input!;
        const moments = scope.fromWire(wires.moments, total);
        const affine = affineOf(scope, pass);
        const statistics = { source: "batch", moments } as const;
        return take(scope.normalize({ input, statistics, affine }), x.shape);
      }),
    backward: (pass, dy, moments, reduce) =>
      inTurn((scope) => {
        const { x, view, counted } = pass;
        const [, channels] = view;
        const input = put(scope, x, view);
        const gradOutput = put(scope, dy, view);
        const statistics = {
          source: "batch",
          moments: scope.fromWire(wires.moments, moments),
        } as const;
        const nothing = none(scope, channels);
        const rows = counted ? { input, gradOutput } : { input: nothing, gradOutput: nothing };
        const local = scope.gradientSums({ ...rows, statistics });
        const total = scope.fromWire(wires.sums, reduce(() => readNow(scope, local)));
        const { gradInput, gradWeight, gradBias } = scope.gradients({
          ...{ input, gradOutput, statistics, sums: { local, total } },
          affine: affineOf(scope, pass),
        });
        const zeros = () => tf.zeros([channels]);
        return {
          dx: take(gradInput, x.shape),
          dgamma: gradWeight === null ? zeros() : take(gradWeight, [channels]),
          dbeta: gradBias === null ? zeros() : take(gradBias, [channels]),
        };
      }),
    second: (pass, { dy, byDx, byDgamma, byDbeta }, moments, reduce) =>
      inTurn((scope) => {
        const { x, view, counted } = pass;
        const [, channels] = view;
        const affine = affineOf(scope, pass);
        const input = put(scope, x, view);
        let steps: ReturnType<typeof launchSecond<A>> | undefined;
        const total = reduce(() => {
          checkPass(device, "secondOrder", "compute the gradients of the gradients");
          steps = launchSecond(scope, {
            ...{ input, affine, gradOutput: put(scope, dy, view) },
            statistics: { source: "batch", moments: scope.fromWire(wires.moments, moments) },
            directions: {
              input: put(scope, byDx, view),
              weight: affine.weight && vector(scope, byDgamma),
              bias: affine.bias && vector(scope, byDbeta),
            },
          }, readNow);
          const own = steps.wire as Float64Array;
          return counted ? own : new Float64Array(secondWire.length(channels));
        });
        const { gradInput, gradGradOutput, gradWeight } = steps!.conclude(total);
        return {
          byX: take(gradInput.data, x.shape),
          byGamma: gradWeight === null ? tf.zeros([channels]) : take(gradWeight, [channels]),
          byDy: take(gradGradOutput.data, x.shape),
        };
      }),
  });
}

function readNow<A>(device: Device<A>, array: A): Float64Array {
  if (device.toWireNow) return device.toWireNow(array);
  throw new DeviceError(
    `Cannot normalize the batch without waiting as the device must be able to read back at once: ` +
      `${device.info.name} is not; use wasmDevice(), or createTrainer, which awaits`,
    "unsupported",
  );
}
