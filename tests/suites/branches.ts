/** Parallel branches in one readback and one collective: the bits of calls of their own, and failures that name the branch. */

import assert from "node:assert/strict";
import {
  type AllReduce,
  type BackwardBranch,
  batchNormBackward,
  type BatchNormState,
  CollectiveError,
  type Device,
  type ForwardBranch,
  type GroupForward,
  initBatchNorm,
  region,
  runRanks,
  stateToHost,
  syncBatchNormBackward,
  syncBatchNormBackwardAll,
  syncBatchNormForward,
  syncBatchNormForwardAll,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import { momentsWire, sumsWire } from "../../lib/device_author.ts";
import { labelOn } from "../../lib/norm/steps.ts";
import { formatOn } from "../../lib/wire.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { record } from "../recording.ts";

/** Registers the tests of parallel branches for a device. */
export function branchSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("branches together give the bits of branches by themselves", async (device) => {
    for (const worldSize of [1, 3]) {
      await runRanks(worldSize, async (group) => {
        const branches = threeBranches(device, group.rank);
        const together = await syncBatchNormForwardAll(branches, { device, group });
        const gradients = together.map(({ output }) => ramp(device, output.shape, 5 + group.rank));
        const back = await syncBatchNormBackwardAll(
          together.map(({ saved }, i) => ({ saved, gradOutput: gradients[i] })),
          { device, group },
        );
        assert.deepEqual([together.length, back.length], [3, 3]);
        for (const [i, { state, input, options }] of branches.entries()) {
          const alone = await syncBatchNormForward(state, input, { device, group }, options);
          const { saved } = alone;
          const gradient = await syncBatchNormBackward(saved, gradients[i], { device, group });
          assert.deepEqual(await numbersOf(device, together[i]), await numbersOf(device, alone));
          assert.deepEqual(
            await toArray(device, back[i].gradInput),
            await toArray(device, gradient.gradInput),
          );
          assert.deepEqual(
            await device.download(back[i].gradWeight!),
            await device.download(gradient.gradWeight!),
          );
          assert.equal(back[i].gradResidual === undefined, gradient.gradResidual === undefined);
        }
      });
    }
  });

  test("branches share one readback's batch and one collective per direction", async (device) => {
    const states = [3, 2].map((channels) => initBatchNorm(device, channels));
    await runRanks(2, async (group) => {
      const watched = record(device);
      const labels: string[] = [];
      const lengths: number[] = [];
      const allReduce: AllReduce = async (local, combine, options) => {
        labels.push(`${options?.label}`);
        const total = await group.allReduce(local, combine, options);
        lengths.push(total.length);
        return total;
      };
      const effects = { device: watched.device, group: { worldSize: 2, allReduce } };
      const launched = () =>
        watched.calls.splice(0).filter((call) => !["describe", "owns", "free"].includes(call));
      // What a device can read at once is read so.
      const read = device.toWireNow ? "toWireNow" : "toWire";
      const branches = states.map((state) => ({
        state,
        input: ramp(device, [4, state.numFeatures, 2], group.rank),
      }));
      const forward = await syncBatchNormForwardAll(branches, effects);
      assert.deepEqual(
        launched(),
        `batch moments ${read} moments ${read} end
         batch fromWire normalize updateRunningStats fromWire normalize updateRunningStats end`
          .split(/\s+/),
      );
      await syncBatchNormBackwardAll(
        forward.map(({ saved }, i) => ({ saved, gradOutput: branches[i].input })),
        effects,
      );
      assert.deepEqual(
        launched(),
        `batch gradientSums gradientSums ${read} ${read} end
         batch fromWire gradients fromWire gradients end`.split(/\s+/),
      );
      assert.deepEqual(labels, [
        labelOn(device, "syncBatchNormForwardAll [C=3 float32, C=2 float32]"),
        labelOn(device, "syncBatchNormBackwardAll [C=3 float32, C=2 float32]"),
      ]);
      const both = [momentsWire, sumsWire].map((wire) => formatOn(device, wire).length)
        .map((length) => length(3) + length(2));
      assert.deepEqual(lengths, both);
    });
  });

  test("no branches are a collective too, and other branches than the other ranks' an error", async (device) => {
    const state = initBatchNorm(device, 2);
    const input = ramp(device, [2, 2], 1);
    const none = await runRanks(2, async (group) => [
      ...await syncBatchNormForwardAll([], { device, group }),
      ...await syncBatchNormBackwardAll<A>([], { device, group }),
    ]);
    assert.deepEqual(none, [[], []]);
    await runRanks(2, async (group) => {
      const branches = group.rank === 0 ? [] : [{ state, input }];
      await assert.rejects(
        syncBatchNormForwardAll(branches, { device, group }),
        /syncBatchNormForwardAll \[\].*syncBatchNormForwardAll \[C=2 float32\]/s,
      );
    });
  });

  test("what is wrong with a branch names it on every rank, and changes nothing", async (device) => {
    const state = initBatchNorm(device, 2);
    const before = await stateToHost(device, state);
    const good = ramp(device, [2, 2], 1);
    const bad = ramp(device, [2, 3], 1);
    await runRanks(2, async (group) => {
      const fine = { state, input: good };
      const given = group.rank === 1 ? { state, input: bad } : fine;
      await assert.rejects(
        syncBatchNormForwardAll([fine, given], { device, group }),
        failed(/^TypeError: Cannot normalize the batch of branch 1 as its channels must equal/),
      );
      const [{ saved }] = await syncBatchNormForwardAll([fine], { device, group });
      const gradOutput = group.rank === 1 ? bad : good;
      await assert.rejects(
        syncBatchNormBackwardAll([{ saved, gradOutput }], { device, group }),
        failed(/^TypeError: Cannot compute the gradients of branch 0 as the gradOutput's shape/),
      );
      const missing = group.rank === 1 ? undefined as unknown as ForwardBranch<A> : fine;
      await assert.rejects(
        syncBatchNormForwardAll([missing], { device, group }),
        failed(/^TypeError: Cannot normalize the batch of branch 0 as/),
      );
    });
    assert.deepEqual(await stateToHost(device, state), before);
    const group = { worldSize: 1, allReduce: () => Promise.reject(new Error("communicated")) };
    await assert.rejects(
      syncBatchNormForwardAll([{ state, input: bad }], { device, group }),
      /^TypeError: Cannot normalize the batch of branch 0 as its channels must equal/,
    );
    const single = ramp(device, [1, 2], 1);
    await assert.rejects(
      syncBatchNormForwardAll([{ state, input: good }, { state, input: single }], {
        device,
        group,
      }),
      /^RangeError: Cannot normalize the batch of branch 1 as it needs more than 1 value/,
    );
    const nothing = null as unknown as readonly never[];
    await assert.rejects(
      syncBatchNormForwardAll<A>(nothing, { device, group }),
      /^TypeError: Cannot normalize the batches as branches must be an array .*: current value is null/,
    );
    await assert.rejects(
      syncBatchNormBackwardAll<A>(nothing, { device, group }),
      /^TypeError: Cannot compute the gradients of the branches as branches must be an array/,
    );
  });

  test("a gradOutput is given up once, and only where no branch needs it", async (device) => {
    for (const worldSize of [1, 2]) {
      await runRanks(worldSize, async (group) => {
        const state = initBatchNorm(device, 2);
        const inputs = [1, 2].map((seed) => ramp(device, [3, 2], seed));
        const forward = await syncBatchNormForwardAll(
          inputs.map((input) => ({ state, input })),
          { device, group },
        );
        const branchesOf = (gradients: readonly Tensor<A>[]): BackwardBranch<A>[] =>
          forward.map(({ saved }, i) => ({
            ...{ saved, gradOutput: gradients[i], options: { donate: true } },
          }));
        const shared = ramp(device, [3, 2], 3);
        for (const taken of [[shared, shared], [shared, inputs[0]]]) {
          const call = syncBatchNormBackwardAll(branchesOf(taken), { device, group });
          await assert.rejects(call, (error: Error) => {
            const reason = worldSize === 1 ? error : error.cause as Error;
            assert.match(
              `${reason}`,
              /a donated gradOutput must be nothing else that the call needs/,
            );
            return true;
          });
          assert(taken.every(({ data }) => device.owns(data)));
        }
        const gradients = [4, 5].map((seed) => ramp(device, [3, 2], seed));
        const kept = forward.map(({ saved }, i) => ({ saved, gradOutput: gradients[i] }));
        const expected = await syncBatchNormBackwardAll(kept, { device, group });
        const given = await syncBatchNormBackwardAll(branchesOf(gradients), { device, group });
        assert(!gradients.some(({ data }) => device.owns(data)));
        for (const [i, { gradInput }] of given.entries()) {
          const numbers = await toArray(device, gradInput);
          assert.deepEqual(numbers, await toArray(device, expected[i].gradInput));
        }
      });
    }
  });

  test("saved of branches and of calls of their own are the same", async (device) => {
    const state = initBatchNorm(device, 2);
    await runRanks(2, async (group) => {
      const input = ramp(device, [3, 2], group.rank);
      const [together] = await syncBatchNormForwardAll([{ state, input }], { device, group });
      const alone = await syncBatchNormForward(state, input, { device, group });
      const a = await syncBatchNormBackward(together.saved, input, { device, group });
      const [b] = await syncBatchNormBackwardAll(
        [{ saved: alone.saved, gradOutput: input }],
        { device, group },
      );
      assert.deepEqual(await toArray(device, a.gradInput), await toArray(device, b.gradInput));
      assert.throws(
        () => batchNormBackward(together.saved as never, input, { device }),
        /takes what batchNormForward saved/,
      );
    });
  });

  test("branches leave nothing behind in a region", async (device) => {
    await runRanks(2, async (group) => {
      const kept = await region(device, async (scope) => {
        const branches = threeBranches(scope, group.rank);
        const [{ output }] = await syncBatchNormForwardAll(branches, { device: scope, group });
        return output;
      });
      assert(device.owns(kept.data));
    });
  });
}

/** Batches of several sizes, one of them empty on rank 1, with and without what may follow. */
function threeBranches<A>(device: Device<A>, rank: number): ForwardBranch<A>[] {
  const stateOf = (channels: number): BatchNormState<A> => initBatchNorm(device, channels);
  const residual = ramp(device, [2, 4, 2, 2], 7);
  return [
    { state: stateOf(3), input: ramp(device, [2 + rank, 3, 2], rank) },
    {
      state: stateOf(4),
      input: ramp(device, [2, 4, 2, 2], 2 + rank),
      options: { activation: "relu", residual },
    },
    {
      state: stateOf(2),
      input: rank === 1 ? tensor(device, [], [0, 2]) : ramp(device, [3, 2], 3 + rank),
      options: { updateRunningStats: false },
    },
  ];
}

function ramp<A>(device: Device<A>, shape: readonly number[], seed: number): Tensor<A> {
  const size = shape.reduce((product, extent) => product * extent, 1);
  const values = Float32Array.from({ length: size }, (_, i) => Math.sin(1 + i * (2 + seed)) * 3);
  return tensor(device, values, shape);
}

async function numbersOf<A>(device: Device<A>, { output, state }: GroupForward<A>) {
  return [await toArray(device, output), await stateToHost(device, state)];
}

/** A CollectiveError of rank 1 with such a cause. */
function failed(cause: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert(error instanceof CollectiveError);
    assert.deepEqual(error.ranks, [1]);
    assert.match(`${error.cause}`, cause);
    return true;
  };
}
