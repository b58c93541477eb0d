/**
 * The second of the two effects: a process group is a frozen record of collectives, received as an argument. Types
 * only; the engines are under `groups/`.
 */

/**
 * Folds the contributions of two ranks into one. Pure, and associative and commutative up to rounding: an engine that
 * promises the same bits on every rank folds once, or in one order everywhere. The result has the length of its
 * arguments. The library's own are `sum` and `combineMoments`.
 */
export interface Combine {
  (a: Float64Array, b: Float64Array): Float64Array;
  /**
   * Declares that element i of the result depends on the elements i of the arguments alone, whatever i is. Long arrays
   * may then be cut and each rank fold a part; without it they are folded whole. `sum` declares it; a function of your
   * own does by `Object.assign(combine, { elementwise: true } as const)`. The same on all ranks.
   */
  readonly elementwise?: true;
}

/** Options of every collective. */
export interface CollectiveOptions {
  /** What the rank is doing; compared across ranks, so that two different calls never combine. */
  readonly label?: string;
  /** Gives up the call, and with it the group. */
  readonly signal?: AbortSignal;
}

/** Options of a reduction. */
export interface ReduceOptions extends CollectiveOptions {
  /**
   * Whether the total takes the place of the local values, in their own array, which the call resolves to: without memory for
   * another, which for 8 KiB takes as long as to send them to another thread. Until then, and if it rejects, what is in it is
   * undefined. Of this rank alone; false by default. A reduction of your own may ignore it: the library takes a new array too.
   */
  readonly inPlace?: boolean;
}

/**
 * Folds one array of every rank, in rank order where the engine allows, and gives the same bits to every rank.
 *
 * Ranks match calls by program order, so an engine takes its place in line when it is called, not when `local`
 * resolves. A `local` promise that rejects reaches every rank as a `CollectiveError` and leaves the group usable.
 */
export type AllReduce = (
  local: Float64Array | Promise<Float64Array>,
  combine: Combine,
  options?: ReduceOptions,
) => Promise<Float64Array>;

/**
 * {@linkcode AllReduce} that holds up the thread and returns the total itself, with the same bits, deadline and errors; it
 * meets the awaited calls of other ranks. For threads that may be held up: MPI, and workers with `wait: "block"`. A
 * function `local` is called in the call's turn; what it throws is this rank's failure on every rank.
 *
 * Throws TypeError where the group's engine or this thread cannot wait so, and while an awaited call of this rank, in any
 * of its groups, is under way.
 */
export type AllReduceBlocking = (
  local: Float64Array | (() => Float64Array),
  combine: Combine,
  options?: Pick<ReduceOptions, "label" | "inPlace">,
) => Float64Array;

/** Gives every rank the arrays of all ranks, in rank order; all of one length. */
export type AllGather = (
  local: Float64Array | Promise<Float64Array>,
  options?: CollectiveOptions,
) => Promise<readonly Float64Array[]>;

/** Gives every rank the root's array; the others pass one of the same length, whose values do not matter. */
export type Broadcast = (
  local: Float64Array | Promise<Float64Array>,
  root: number,
  options?: CollectiveOptions,
) => Promise<Float64Array>;

/** Resolves once every rank has called it. */
export type Barrier = (options?: CollectiveOptions) => Promise<void>;

/**
 * Cuts a group into disjoint ones: ranks of one color form a group, ordered by key, then by their old rank. Every rank
 * of the old group must call it; `key` is 0 by default.
 */
export type Split = (
  color: number,
  key?: number,
  options?: CollectiveOptions,
) => Promise<ProcessGroup>;

/** What a reduction over replicas needs: how many there are, and the reduction. */
export interface ReduceGroup {
  /** Number of ranks; with 1 no collective is called. */
  readonly worldSize: number;
  /** The reduction; a plain function. */
  readonly allReduce: AllReduce;
}

/** What a reduction over replicas needs that cannot await it. */
export interface BlockingGroup {
  /** Number of ranks; with 1 no collective is called. */
  readonly worldSize: number;
  /** The reduction; a plain function. */
  readonly allReduceBlocking: AllReduceBlocking;
}

/** One rank's handle on a group of ranks that compute together. Frozen. */
export interface ProcessGroup extends ReduceGroup, BlockingGroup {
  /** This rank's number, 0 .. worldSize - 1. */
  readonly rank: number;
  /** Arrays of all ranks. */
  readonly allGather: AllGather;
  /** One rank's array for all. */
  readonly broadcast: Broadcast;
  /** Waits for all. */
  readonly barrier: Barrier;
  /** Disjoint groups of these ranks. */
  readonly split: Split;
}
