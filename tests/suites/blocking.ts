/** Batch norm on threads that are held up: the bits and the errors of the awaited functions, over groups that can block. */

import assert from "node:assert/strict";
import {
  allReduceMoments,
  allReduceMomentsBlocking,
  batchMoments,
  type CollectiveError,
  type Device,
  initBatchNorm,
  type ProcessGroup,
  type ReferenceArray,
  referenceDevice,
  stateToHost,
  syncBatchNormBackward,
  syncBatchNormBackwardBackward,
  syncBatchNormBackwardBackwardBlocking,
  syncBatchNormBackwardBlocking,
  syncBatchNormBackwardMoments,
  syncBatchNormBackwardMomentsBlocking,
  syncBatchNormForward,
  syncBatchNormForwardBlocking,
  syncBatchNormJvp,
  syncBatchNormJvpBlocking,
  tensor,
  toArray,
} from "../../mod.ts";
import { type GroupKit, type RankTask, register } from "../kit.ts";
import { normalArray } from "../random.ts";

/** Trains two steps either way on uneven ranks, one of them empty; true for every result that has the same bits. */
export async function trainBothWays(group: ProcessGroup): Promise<boolean[]> {
  const device = referenceDevice();
  const effects = { device, group };
  const samples = [3, 0, 1, 5][group.rank];
  const put = (seed: number) =>
    tensor(device, normalArray(samples * 6, seed + 10 * group.rank), [samples, 3, 2]);
  const options = { activation: "relu", residual: put(2) } as const;
  const same: boolean[] = [];
  let [awaited, blocking] = [initBatchNorm(device, 3), initBatchNorm(device, 3)];
  for (let step = 0; step < 2; step++) {
    const [x, dy] = [put(step), put(step + 5)];
    const a = await syncBatchNormForward(awaited, x, effects, options);
    const b = syncBatchNormForwardBlocking(blocking, x, effects, options);
    const keep = { keepSums: true };
    const back = await syncBatchNormBackward(a.saved, dy, effects, keep);
    const now = syncBatchNormBackwardBlocking(b.saved, dy, effects, keep);
    const own = batchMoments(x, { device });
    const along = put(step + 7);
    const cotangents = { gradInput: along, gradWeight: awaited.bias, gradResidual: dy };
    const ofMoments = { dmean: awaited.weight, dvariance: awaited.bias };
    const second = await syncBatchNormBackwardBackward(a.saved, dy, cotangents, effects, {
      sums: back.sums,
    });
    const secondNow = syncBatchNormBackwardBackwardBlocking(b.saved, dy, cotangents, effects, {
      sums: now.sums,
    });
    const weights = device.upload(Float32Array.from({ length: samples }, (_, i) => (i + 1) / 2));
    const byWeight = await syncBatchNormForward(awaited, x, effects, { weights });
    const byWeightNow = syncBatchNormForwardBlocking(blocking, x, effects, { weights });
    const tensors = [
      [byWeight.output, byWeightNow.output],
      [
        (await syncBatchNormBackward(byWeight.saved, dy, effects)).gradInput,
        syncBatchNormBackwardBlocking(byWeightNow.saved, dy, effects).gradInput,
      ],
      [second.gradInput, secondNow.gradInput],
      [second.gradGradOutput, secondNow.gradGradOutput],
      [
        await syncBatchNormJvp(byWeight.saved, { input: along }, effects),
        syncBatchNormJvpBlocking(byWeightNow.saved, { input: along }, effects),
      ],
      [
        (await syncBatchNormBackwardMoments(byWeight.saved, dy, ofMoments, effects)).gradInput,
        syncBatchNormBackwardMomentsBlocking(byWeightNow.saved, dy, ofMoments, effects).gradInput,
      ],
    ];
    const [moments, momentsNow] = [
      await allReduceMoments(own, effects),
      allReduceMomentsBlocking(own, effects),
    ];
    const pairs = await Promise.all([
      [toArray(device, a.output), toArray(device, b.output)],
      ...tensors.map((pair) => pair.map((tensor) => toArray(device, tensor))),
      [device.download(second.gradWeight!), device.download(secondNow.gradWeight!)],
      [toArray(device, back.gradInput), toArray(device, now.gradInput)],
      [toArray(device, back.gradResidual!), toArray(device, now.gradResidual!)],
      [device.download(back.gradWeight!), device.download(now.gradWeight!)],
      [device.toWire(moments.data), device.toWire(momentsNow.data)],
      [device.toWire(a.moments.data), device.toWire(moments.data)],
    ].map((pair) => Promise.all<Float32Array | Float64Array>(pair)));
    same.push(...pairs.map(([one, other]) => one.every((value, i) => Object.is(value, other[i]))));
    [awaited, blocking] = [a.state, b.state];
  }
  const [one, other] = await Promise.all([awaited, blocking].map((s) => stateToHost(device, s)));
  same.push(one.runningVar!.every((value, i) => value === other.runningVar![i]));
  return same;
}

/** What every rank catches where rank 1 has a wrong batch, no device, or one that cannot read back at once. */
export function failBlocked(group: ProcessGroup): Promise<(string | undefined)[]> {
  const device = referenceDevice();
  const state = initBatchNorm(device, 3);
  const fine = tensor(device, normalArray(12, 1), [4, 3]);
  const wrong = tensor(device, normalArray(12, 1), [3, 4]);
  const { toWireNow: _, ...slow } = device;
  const mine = <T>(usual: T, unusual: T): T => group.rank === 1 ? unusual : usual;
  const calls = [
    () => syncBatchNormForwardBlocking(state, mine(fine, wrong), { device, group }),
    () => syncBatchNormForwardBlocking(state, fine, { device: mine(device, null as never), group }),
    () =>
      syncBatchNormForwardBlocking(state, fine, {
        device: mine(device, slow as Device<ReferenceArray>),
        group,
      }),
  ];
  const caught = calls.map((call) => {
    try {
      call();
    } catch (error) {
      const { name, code, ranks, message } = error as CollectiveError;
      return `${name} ${code} ${ranks}: ${message}`;
    }
  });
  // And the group stays usable.
  const after = syncBatchNormForwardBlocking(state, fine, { device, group });
  return Promise.resolve([...caught, `${after.moments.count}`]);
}

/** Registers the tests of a kind of group that can block. */
export function blockingSuite(kit: GroupKit): void {
  const module = import.meta.url;
  const test = <R>(
    name: string,
    ranks: number,
    body: RankTask<null, R>["body"],
    check: (results: R[]) => void,
  ) =>
    register(kit, name, async () => {
      check(await kit.run(ranks, { module, name: body.name, body }, null));
    });

  test(
    "batch norm that holds up its thread has the bits of that which awaits",
    4,
    trainBothWays,
    (all) => {
      for (const same of all) assert.deepEqual(same, Array(27).fill(true));
    },
  );
  test("what is wrong on a rank that blocks reaches all", 3, failBlocked, (all) => {
    const [shape, nothing, slow, count] = all[0];
    for (const own of all) assert.deepEqual(own, all[0]);
    assert.match(shape!, /^CollectiveError rankFailed 1: .*its channels must equal numFeatures/);
    assert.match(nothing!, /^CollectiveError rankFailed 1: .*effects must be { device }/);
    assert.match(slow!, /^CollectiveError rankFailed 1: .*must be able to read back at once/);
    assert.equal(count, "12");
  });
}
