/** States as records: how they begin, what they share, what they keep. */

import assert from "node:assert/strict";
import {
  addScaled,
  batchNormBackward,
  batchNormForward,
  type Device,
  initBatchNorm,
  inProcessGroup,
  runRanks,
  stateFromHost,
  stateToHost,
  syncBatchNormForward,
  type Tensor,
  tensor,
  withParameters,
} from "../../mod.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { uniforms } from "../random.ts";
import { record } from "../recording.ts";

const READBACKS = ["download", "momentsToWire", "sumsToWire"];

/** Registers the tests of states for a device. */
export function stateSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);
  const readbacks = (calls: readonly string[]) => calls.filter((call) => READBACKS.includes(call));

  test("results and states are frozen records", async (device) => {
    const state = initBatchNorm(device, 3);
    const x = input(device);
    const forward = batchNormForward(state, x, { device }, { activation: "relu" });
    const backward = batchNormBackward(forward.saved, x, { device });
    const records = {
      device,
      state,
      x,
      shape: x.shape,
      forward,
      output: forward.output,
      outputShape: forward.output.shape,
      next: forward.state,
      saved: forward.saved,
      backward,
      gradInput: backward.gradInput,
      host: await stateToHost(device, state),
      parameters: withParameters(state, {}),
      group: inProcessGroup(1)[0],
    };
    for (const [name, value] of Object.entries(records)) {
      assert(Object.isFrozen(value), `${name} is frozen`);
    }
  });

  test("the state is the same object where nothing changed", async (device) => {
    const tracked = initBatchNorm(device, 3);
    const untracked = initBatchNorm(device, 3, { trackRunningStats: false });
    const empty = tensor(device, [], [0, 3, 2]);
    const still = { updateRunningStats: false };
    assert.equal(batchNormForward(untracked, input(device), { device }).state, untracked);
    assert.equal(batchNormForward(tracked, input(device), { device }, still).state, tracked);
    assert.equal(batchNormForward(tracked, empty, { device }).state, tracked);
    await runRanks(2, async (group) => {
      const effects = { device, group };
      const forward = await syncBatchNormForward(tracked, empty, effects);
      assert.equal(forward.state, tracked);
      const other = await syncBatchNormForward(tracked, input(device), effects, still);
      assert.equal(other.state, tracked);
    });
    const { state } = batchNormForward(tracked, input(device), { device });
    assert.equal(state.weight, tracked.weight, "unchanged vectors are shared");
    assert.notEqual(state.runningMean, tracked.runningMean);
  });

  test("a counter at its end stays there, and the state can be used again", (device) => {
    for (const momentum of [0.1, null]) {
      let state = { ...initBatchNorm(device, 3, { momentum }), numBatchesTracked: 2 ** 53 - 2 };
      for (let i = 0; i < 3; i++) {
        state = batchNormForward(state, input(device), { device }).state;
        assert.equal(state.numBatchesTracked, 2 ** 53 - 1);
      }
    }
  });

  test("a state is a plain record: a spread copy is valid, and null stays null", async (device) => {
    const state = initBatchNorm(device, 3, { bias: false, trackRunningStats: false, eps: 0 });
    const host = await stateToHost(device, { ...state, eps: 0.5 });
    assert.deepEqual(host, {
      numFeatures: 3,
      eps: 0.5,
      momentum: 0.1,
      weight: Float32Array.of(1, 1, 1),
      bias: null,
      runningMean: null,
      runningVar: null,
      numBatchesTracked: 0,
    });
    const again = await stateToHost(device, stateFromHost(device, { ...host }));
    assert.deepEqual(again, host);
    batchNormForward({ ...state, eps: 1 }, { ...input(device) }, { device });
  });

  test("initBatchNorm() begins as PyTorch does, or as its page says", async (device) => {
    const { weight, bias, runningMean, runningVar } = await stateToHost(
      device,
      initBatchNorm(device, 2),
    );
    assert.deepEqual(
      [weight, bias, runningMean, runningVar].map((vector) => vector && [...vector]),
      [[1, 1], [0, 0], [0, 0], [1, 1]],
    );
    const drawn = (seed: number) =>
      stateToHost(
        device,
        initBatchNorm(device, 50, { weightInit: "uniform", random: uniforms(seed) }),
      );
    const [a, b, c] = await Promise.all([drawn(1), drawn(1), drawn(2)]);
    assert.deepEqual(a, b, "the same seed gives the same weights");
    assert.notDeepEqual(a.weight, c.weight);
    assert(a.weight?.every((value) => value >= 0 && value < 1));
    const bare = await stateToHost(device, initBatchNorm(device, 2, { affine: false, bias: true }));
    assert.equal(bare.weight, null);
    assert.deepEqual(bare.bias, new Float32Array(2));
  });

  test("withParameters() and addScaled() make a step without leaving the device", async (device) => {
    const state = initBatchNorm(device, 2);
    const gradient = device.upload(Float32Array.of(1, -2));
    const watched = record(device);
    const step = (vector: A | null) =>
      vector === null ? null : addScaled(watched.device, vector, gradient, -0.5);
    const next = withParameters(state, { weight: step(state.weight), bias: step(state.bias) });
    assert.deepEqual(readbacks(watched.calls), []);
    const host = await stateToHost(device, next);
    assert.deepEqual(host.weight, Float32Array.of(0.5, 2));
    assert.deepEqual(host.bias, Float32Array.of(-0.5, 1));
    assert.deepEqual((await stateToHost(device, state)).weight, Float32Array.of(1, 1));
    assert.equal(withParameters(state, { bias: null }).bias, null);
  });
}

function input<B>(device: Device<B>): Tensor<B> {
  return tensor(device, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13], [2, 3, 2]);
}
