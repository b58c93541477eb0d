/**
 * What is measured: a row is one operation at one shape by one implementation. A device, a peer or a kind of group joins
 * as a function that returns its rows.
 */

import {
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  type Device,
  referenceDevice,
  region,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormForward,
  toArray,
} from "../mod.ts";
import * as oracle from "../tests/oracle.ts";
import {
  type BatchShape,
  compare,
  elementsOf,
  numbersOf,
  place,
  SHAPES,
  titleOf,
} from "./batches.ts";

/** One measurement. */
export interface Row {
  /** Operation and shape; the rows of a group compare with each other. */
  readonly group: string;
  /** Who computes; unique within the group. */
  readonly name: string;
  /** Bytes that move if nothing stays in cache: passes over the tensor times its size. */
  readonly bytes: number;
  /** Runs the operation once. */
  readonly run: () => unknown;
  /** Compares one run with the oracle; rejects where it is wrong. */
  readonly check: () => Promise<void>;
}

/** Forward reads the tensor twice and writes it once; backward reads two tensors twice and writes one. */
const PASSES = {
  copy: 2,
  inference: 2,
  forward: 3,
  backward: 5,
  "forward and backward": 8,
} as const;

/** Every row. */
export function allRows(): Row[] {
  return SHAPES.flatMap((shape) => [
    copyRow(shape),
    ...deviceRows(shape, referenceDevice(), "reference", 1),
    groupRow(shape, referenceDevice(), "reference", 2),
  ]);
}

function titled(operation: keyof typeof PASSES, shape: BatchShape) {
  const bytes = PASSES[operation] * elementsOf(shape) * Float32Array.BYTES_PER_ELEMENT;
  const shown = operation === "copy" ? "inference" : operation;
  return { group: `${shown} ${titleOf(shape)}`, bytes };
}

/** The runtime's own copy of the tensor: the limit, as far as one thread of it goes. */
function copyRow(shape: BatchShape): Row {
  const { batch: { values } } = numbersOf(shape);
  const target = new Float32Array(values.length);
  return {
    ...titled("copy", shape),
    name: "plain copy",
    run: () => target.set(values),
    check: () => Promise.resolve(),
  };
}

/** The local functions on one device. */
function deviceRows<A>(shape: BatchShape, device: Device<A>, name: string, ulps: number): Row[] {
  const { batch, gradient, state: host } = numbersOf(shape);
  const { state, x, dy } = place(device, shape);
  const { residuals } = batchNormForward(state, x, { device });
  const check = async (tensor: Parameters<typeof toArray<A>>[1], expected: ArrayLike<number>) =>
    compare(await toArray(device, tensor), expected, shape, batch, ulps);
  const discard = (body: (scope: Device<A>) => unknown) => () =>
    region(device, (scope) => {
      body(scope);
    });
  return [
    {
      ...titled("inference", shape),
      name,
      run: discard((scope) => batchNormInfer(state, x, { device: scope })),
      check: () => {
        const statistics = {
          count: 0,
          mean: [...host.runningMean ?? []],
          variance: [...host.runningVar ?? []],
        };
        const expected = oracle.forward(batch, statistics, host);
        return check(batchNormInfer(state, x, { device }), expected);
      },
    },
    {
      ...titled("forward", shape),
      name,
      run: discard((scope) => batchNormForward(state, x, { device: scope })),
      check: () =>
        check(batchNormForward(state, x, { device }).output, oracle.trainForward(batch, host)),
    },
    {
      ...titled("backward", shape),
      name,
      run: discard((scope) => batchNormBackward(residuals, dy, { device: scope })),
      check: () =>
        check(
          batchNormBackward(residuals, dy, { device }).gradInput,
          oracle.trainBackward(batch, gradient, host).gradInput,
        ),
    },
    {
      ...titled("forward and backward", shape),
      name,
      run: discard((scope) => {
        const forward = batchNormForward(state, x, { device: scope });
        batchNormBackward(forward.residuals, dy, { device: scope });
      }),
      check: () => Promise.resolve(), // Its parts are checked above.
    },
  ];
}

/** The synchronised functions over ranks of this thread: what synchronization adds, since the ranks share one core. */
function groupRow<A>(shape: BatchShape, device: Device<A>, name: string, worldSize: number): Row {
  const ranks = Array.from(
    { length: worldSize },
    (_, rank) => place(device, shape, rank, worldSize),
  );
  const step = (scope: Device<A>) =>
    runRanks(worldSize, async (group) => {
      const { state, x, dy } = ranks[group.rank];
      const { residuals } = await syncBatchNormForward(state, x, { device: scope, group });
      return await syncBatchNormBackward(residuals, dy, { device: scope, group });
    });
  return {
    ...titled("forward and backward", shape),
    name: `${name}, synchronised over ${worldSize} ranks of one thread`,
    run: () =>
      region(device, async (scope) => {
        await step(scope);
      }),
    check: async () => {
      const { batch, gradient, state } = numbersOf(shape);
      const parts = await step(device);
      const dx = await Promise.all(parts.map(({ gradInput }) => toArray(device, gradInput)));
      const { gradInput } = oracle.trainBackward(batch, gradient, state);
      compare(Float32Array.from(dx.flatMap((part) => [...part])), gradInput, shape, batch, 1);
    },
  };
}
