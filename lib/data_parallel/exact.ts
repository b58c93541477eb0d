/** Exact sums of all replicas: what is reduced are digits, and rounding comes last. */

import { checkDevice, checkOptions, checkSignal, groupIn, signalIn } from "../check_effects.ts";
import type { CollectiveOptions, ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { digest } from "../bits.ts";
import { exchange } from "../exchange.ts";
import { type ExactSums, isExactSums, noSums, roundSums, SUM_LENGTH } from "../exact/sums.ts";
import { sum } from "../moments.ts";
import { compose } from "../ownership.ts";
import { called, copierOf, type Fold, fold } from "../tree.ts";
import { checkWire } from "../wire.ts";
import { shown, wrongValue } from "../words.ts";

/** A tree of exact sums with arrays of a device in their places. */
export type Reduced<T, A> = T extends ExactSums ? A
  : T extends object ? { readonly [K in keyof T]: Reduced<T[K], A> }
  : T;

/** What {@linkcode reduceExactly} is told. */
export interface ExactReduction extends Pick<CollectiveOptions, "signal"> {
  readonly exact: true;
  readonly average?: boolean;
}

const ACTION = "reduce the exact sums";

interface Node<A> {
  readonly shape: string;
  readonly build: (arrays: readonly A[]) => unknown;
}

/** Takes a tree of sums apart: those it has, in an order that all ranks share, and how it is put together again. */
function flatten<A>(tree: unknown) {
  const leaves: ExactSums[] = [];
  const leaf = (node: unknown, path: string): Node<A> | undefined => {
    if (node === null) return { shape: "null", build: () => null };
    if (isExactSums(node)) {
      const at = leaves.push(node) - 1;
      return { shape: `${node.length}`, build: (arrays) => arrays[at] };
    }
    if (typeof node === "object" && !ArrayBuffer.isView(node)) return undefined;
    throw noSums(ACTION, called(path, "the tree"), shown(node));
  };
  const branch: Fold<Node<A>>["branch"] = (node, children, path) => {
    const copy = copierOf(node);
    if (copy === null) throw noSums(ACTION, called(path, "the tree"), shown(node));
    const results = children.map(({ result }) => result as Node<A>);
    const shapes = children.map(({ step }, i) => `${JSON.stringify(step)}:${results[i].shape}`);
    return {
      shape: `(${shapes.join()})`,
      build: (arrays) => copy(results.map((result) => result.build(arrays))),
    };
  };
  const whole = fold<Node<A>>(tree, {
    ...{ action: ACTION, name: "tree", strict: true, sorted: true, leaf, branch },
    found: () => leaves.length,
  })!;
  const structure = digest(new TextEncoder().encode(whole.shape)).map((word) => word.toString(16));
  return { leaves, build: whole.build, structure: structure.join("") };
}

/** `allReduceGradients` of sums without rounding. */
export async function reduceExactly<A, T>(
  tree: T,
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: ExactReduction,
): Promise<Reduced<T, A>> {
  const { worldSize } = groupIn(effects, options, ACTION);
  const start = () => {
    checkDevice(effects, ACTION);
    checkOptions(options, ["average", "exact", "signal"], ACTION);
    checkSignal(options.signal, ACTION);
    if (options.average !== false) {
      const wanted = "average must be false, as a mean over ranks depends on how many there are: " +
        "divide the loss by the number of all examples";
      throw wrongValue(ACTION, wanted, options.average ?? true);
    }
    return flatten<A>(tree);
  };
  let flat: ReturnType<typeof flatten<A>> | undefined;
  let failure: unknown;
  try {
    flat = start();
  } catch (error) {
    if (worldSize === 1) throw error;
    failure = error;
  }
  const own = () => {
    if (flat === undefined) throw failure;
    return joined(flat.leaves);
  };
  const conclude = (total: Float64Array): Reduced<T, A> => {
    const { leaves, build } = flat!;
    let at = 0;
    const parts = leaves.map(({ length }) => total.subarray(at, at += length * SUM_LENGTH));
    const arrays = compose(
      effects.device,
      (d) => parts.map((part) => d.upload(Float32Array.from(roundSums(part)))),
    );
    return build(arrays) as Reduced<T, A>;
  };
  if (worldSize === 1) return conclude(own());
  const label = `allReduceGradients exact, ${flat?.leaves.length} sums, structure ${
    flat?.structure ?? "of none"
  }`;
  const { total, own: given } = await exchange(
    () => ({ wire: own() }),
    (sending) => effects.group.allReduce(sending, sum, { label, signal: signalIn(options) }),
  );
  checkWire(total, given.length, ACTION);
  return conclude(total);
}

function joined(leaves: readonly ExactSums[]): Float64Array {
  const wires = leaves.map((leaf) => leaf.wire());
  const all = new Float64Array(wires.reduce((total, { length }) => total + length, 0));
  wires.reduce((at, wire) => (all.set(wire, at), at + wire.length), 0);
  return all;
}
