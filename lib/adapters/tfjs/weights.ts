/**
 * The weights of replicas: those of one rank for all, and the check that they are alike.
 *
 * @module
 */

import { checkGroup, checkOptions } from "../../check_effects.ts";
import type { ProcessGroup } from "../../collectives.ts";
import { fromWords, wordsOf } from "../../bits.ts";
import { sum } from "../../moments.ts";
import { checkWire } from "../../wire.ts";
import { joined } from "../joined.ts";
import { checkModel, tensorFlowOf } from "./internals.ts";
import { reduced, tell } from "./reduce.ts";
import type { TensorFlow, TensorFlowLike, TfModel, TfTensor } from "./framework.ts";

/** What a replica needs of its group. */
export type ReplicaGroup = Pick<ProcessGroup, "rank" | "worldSize" | "allReduceBlocking">;

/** Options of {@linkcode broadcastWeights}. */
export interface BroadcastWeightsOptions {
  /** The rank whose weights all shall have; 0 by default. */
  readonly root?: number;
}

const ACTION = "broadcast the weights";

/**
 * Gives all ranks the weights of one, bit by bit: moving statistics too, an optimizer's own not.
 *
 * @param tf TensorFlow.js
 * @param model this rank's replica, whose weights are replaced in place
 * @param group the ranks, which must be able to hold up their threads
 * @param options the root
 * @throws CollectiveError, the same on every rank, where models have other weights or a rank failed (`cause`); TypeError and
 * RangeError for what is no model, group or rank
 *
 * @example
 * ```ts ignore
 * import { broadcastWeights } from "@syncbn/syncbn/tfjs";
 *
 * broadcastWeights(tf, model, group);
 * ```
 */
export function broadcastWeights(
  tf: TensorFlowLike,
  model: TfModel,
  group: ReplicaGroup,
  options: BroadcastWeightsOptions = {},
): void {
  const framework = tensorFlowOf(tf, ACTION);
  checkReplicaGroup(group, ACTION);
  const { rank, worldSize } = group;
  let own: readonly TfTensor[] = [];
  let root = 0;
  try {
    checkOptions(options, ["root"], ACTION);
    checkModel(model, ACTION);
    root = options.root ?? 0;
    if (!Number.isInteger(root) || root < 0 || root >= worldSize) {
      throw new RangeError(
        `Cannot ${ACTION} as root must be a rank below ${worldSize}: current value is ${root}`,
      );
    }
    own = model.getWeights();
  } catch (error) {
    tell(group, error, "tfjs broadcastWeights");
  }
  if (worldSize === 1) return;
  const length = own.reduce((total, { size }) => total + size, 0);
  // As bits, which are added to zeros: a NaN keeps its payload.
  const local = () =>
    rank === root ? Float64Array.from(weightWords(own, length)) : new Float64Array(length);
  const shapes = own.map(({ shape }) => shape.join("x")).join(" ");
  const total = reduced(group, local, sum, `tfjs broadcastWeights ${shapes} from rank ${root}`);
  checkWire(total, length, ACTION);
  if (rank === root) return;
  replaceWeights(framework, model, total);
}

/** Gives a model the weights whose bits these are. */
export function replaceWeights(
  tf: TensorFlow,
  model: Pick<TfModel, "getWeights" | "setWeights">,
  bits: Float64Array,
): void {
  const values = fromWords(bits);
  let at = 0;
  tf.tidy(() => {
    model.setWeights(
      model.getWeights().map(({ shape, size }) => tf.tensor(values.slice(at, at += size), shape)),
    );
  });
}

/** The bits of weights, one after the other. */
export function weightWords(weights: readonly TfTensor[], length: number): Uint32Array {
  return wordsOf(joined(new Float32Array(length), weights.map((weight) => weight.dataSync())));
}

/** Checks a group of replicas. */
export function checkReplicaGroup(group: ReplicaGroup, action: string): void {
  checkGroup(group, {}, action, { collective: "allReduceBlocking", name: "the group" });
  const { rank, worldSize } = group;
  if (Number.isInteger(rank) && rank >= 0 && rank < worldSize) return;
  throw new RangeError(
    `Cannot ${action} as the group's rank must be an integer below ${worldSize}: current value is ${rank}`,
  );
}
