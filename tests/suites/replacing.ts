/** Loops that replace what they began with: memory stays as it is. */

import assert from "node:assert/strict";
import {
  addScaled,
  batchNormForward,
  initBatchNorm,
  region,
  stateToHost,
  tensor,
  withParameters,
} from "../../mod.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { normalArray } from "../random.ts";
import { census } from "../recording.ts";

/** Registers the tests of regions that replace for a device. */
export function replacingSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("a region frees what its result replaces, but for what both share", async (device) => {
    const { device: counted, alive } = census(device);
    let state = initBatchNorm(counted, 3);
    const bias = state.bias;
    const before = alive();
    for (let step = 0; step < 5; step++) {
      const body = (scope: typeof counted) => {
        const x = tensor(scope, normalArray(24, step), [8, 3]);
        const { state: next } = batchNormForward(state, x, { device: scope });
        return withParameters(next, {
          weight: addScaled(scope, next.weight!, next.runningMean!, 0.1),
        });
      };
      state = step % 2
        ? region(counted, body, { replace: state })
        : await region(counted, (scope) => Promise.resolve(body(scope)), { replace: state });
      assert.equal(alive(), before, "as many as before");
    }
    assert.equal(state.bias, bias, "shared by all");
    assert.equal((await stateToHost(counted, state)).numBatchesTracked, 5);
  });

  test("a region that fails frees nothing of what it was to replace", async (device) => {
    const state = initBatchNorm(device, 3);
    const fail = (): never => {
      throw new Error("no");
    };
    assert.throws(() => region(device, fail, { replace: state }), /no/);
    const reject = () => Promise.reject(new Error("no"));
    await assert.rejects(region(device, reject, { replace: state }), /no/);
    assert((await stateToHost(device, state)).weight?.every((value) => value === 1));
  });
}
