/**
 * What is measured: a row is one operation at one shape by one implementation. A device joins as a subject, a peer or a
 * kind of group as a function that returns rows.
 */

import {
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  type Device,
  region,
  release,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormForward,
  type Tensor,
  toArray,
} from "../mod.ts";
import * as oracle from "../tests/oracle.ts";
import { type BatchShape, compare, elementsOf, numbersOf, place } from "./batches.ts";
import type { Timed } from "./measure.ts";

/** One measurement. */
export interface Row extends Timed {
  /** Which operation; unique among the rows of a shape. */
  readonly name: string;
  /** Bytes that move if nothing stays in cache: passes over the tensor times its size. */
  readonly bytes: number;
  /** Compares one run with the oracle; rejects where it is wrong. */
  readonly check: () => Promise<void>;
}

/** The rows of one shape, the limit first; to dispose them frees what they compute on. */
export interface Rows extends Disposable {
  readonly rows: readonly Row[];
}

/** A device and what belongs to measuring it. */
export interface Subject<A> extends Pick<Timed, "settle"> {
  readonly device: Device<A>;
  /** Units in the last place by which its results may differ. */
  readonly ulps: number;
  /** Makes the limit: a plain copy of so many bytes by the same machine. */
  readonly copy: (bytes: number) => Disposable & Pick<Timed, "run">;
  /** The shapes that it is measured at. */
  readonly shapes: readonly BatchShape[];
  /** How many turns its rows take. */
  readonly rounds: number;
}

/** Forward reads the tensor twice and writes it once; backward reads two tensors twice and writes one. */
const PASSES = {
  "plain copy": 2,
  inference: 2,
  forward: 3,
  backward: 5,
  "forward and backward": 8,
} as const;

/** Ranks of the synchronised row. */
const RANKS = 2;

/** Every row of one shape. */
export function rowsOf<A>(subject: Subject<A>, shape: BatchShape): Rows {
  const { device, copy } = subject;
  const bytes = elementsOf(shape) * Float32Array.BYTES_PER_ELEMENT;
  const limit = copy(bytes);
  const parts = [localRows(subject, shape), groupRow(subject, shape)];
  return {
    rows: [
      { name: "plain copy", run: limit.run, check: () => Promise.resolve() },
      ...parts.flatMap(({ rows }) => rows),
    ].map((row) => ({
      ...row,
      settle: subject.settle,
      bytes: bytes * (PASSES[row.name as keyof typeof PASSES] ?? PASSES["forward and backward"]),
    })),
    [Symbol.dispose]: () => {
      release(device, parts.map(({ uses }) => uses));
      limit[Symbol.dispose]();
    },
  };
}

/** Rows and the arrays that they use. */
interface Part {
  readonly rows: readonly Pick<Row, "name" | "run" | "check">[];
  readonly uses: unknown;
}

/** The local functions on one device. */
function localRows<A>({ device, ulps }: Subject<A>, shape: BatchShape): Part {
  const { batch, gradient, state: host } = numbersOf(shape);
  const placed = place(device, shape);
  const { state, x, dy } = placed;
  const forward = batchNormForward(state, x, { device });
  const { saved } = forward;
  const check =
    (compute: (scope: Device<A>) => Tensor<A>, expected: () => ArrayLike<number>) => () =>
      region(device, async (scope) => {
        compare(await toArray(scope, compute(scope)), expected(), shape, batch, ulps);
      });
  const discard = (body: (scope: Device<A>) => unknown) => () =>
    region(device, (scope) => {
      body(scope);
    });
  const infer = (scope: Device<A>) => batchNormInfer(state, x, { device: scope });
  const train = (scope: Device<A>) => batchNormForward(state, x, { device: scope });
  const back = (scope: Device<A>) => batchNormBackward(saved, dy, { device: scope });
  const rows = [
    {
      name: "inference",
      run: discard(infer),
      check: check(infer, () => {
        const statistics = {
          count: 0,
          mean: [...host.runningMean ?? []],
          variance: [...host.runningVar ?? []],
        };
        return oracle.forward(batch, statistics, host);
      }),
    },
    {
      name: "forward",
      run: discard(train),
      check: check((scope) => train(scope).output, () => oracle.trainForward(batch, host)),
    },
    {
      name: "backward",
      run: discard(back),
      check: check(
        (scope) => back(scope).gradInput,
        () => oracle.trainBackward(batch, gradient, host).gradInput,
      ),
    },
    {
      name: "forward and backward",
      run: discard((scope) => {
        const { saved } = train(scope);
        batchNormBackward(saved, dy, { device: scope });
      }),
      check: () => Promise.resolve(), // Its parts are checked above.
    },
  ];
  return { rows, uses: [placed, forward] };
}

/** The synchronised functions over ranks of this thread: what synchronization adds, since the ranks share one core. */
function groupRow<A>({ device, ulps }: Subject<A>, shape: BatchShape): Part {
  const ranks = Array.from({ length: RANKS }, (_, rank) => place(device, shape, rank, RANKS));
  const step = (scope: Device<A>) =>
    runRanks(RANKS, async (group) => {
      const { state, x, dy } = ranks[group.rank];
      const { saved } = await syncBatchNormForward(state, x, { device: scope, group });
      return await syncBatchNormBackward(saved, dy, { device: scope, group });
    });
  const row = {
    name: `the same, synchronised over ${RANKS} ranks of one thread`,
    run: () =>
      region(device, async (scope) => {
        await step(scope);
      }),
    check: () =>
      region(device, async (scope) => {
        const { batch, gradient, state } = numbersOf(shape);
        const parts = await step(scope);
        const dx = await Promise.all(parts.map(({ gradInput }) => toArray(scope, gradInput)));
        const { gradInput } = oracle.trainBackward(batch, gradient, state);
        compare(Float32Array.from(dx.flatMap((part) => [...part])), gradInput, shape, batch, ulps);
      }),
  };
  return { rows: [row], uses: ranks };
}
