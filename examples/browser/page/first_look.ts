/**
 * The picture before any training: what the batch norms are given with the first parameters, computed on the page itself.
 *
 * @module
 */

import { referenceDevice, runRanks } from "../../../mod.ts";
import { share } from "../../batches.ts";
import type { Plan } from "../../compare.ts";
import type { Digits } from "../../digits.ts";
import { hostLayers } from "../../host_layers.ts";
import { observe, pick, store } from "../../network.ts";
import { firstReplica } from "../../train.ts";
import type { Look } from "./state.ts";

/**
 * Looks at the first batch of a plan.
 *
 * @param plan whose first parameters and images
 * @param digits the images
 * @returns what its replicas' batch norms are given
 */
export async function firstLook({ runs, replicas }: Plan, { training }: Digits): Promise<Look> {
  const { task } = runs.sync;
  if (!task) throw new Error("Cannot look at a plan as it must have a run of syncbn");
  const layers = hostLayers(referenceDevice());
  const model = firstReplica(task, layers);
  const stored = store(training, layers);
  const features = await runRanks(replicas, (group) => {
    const own = pick(stored, share(task.batches[0], group.rank, task.perReplica), layers);
    return observe(model, own, layers, group);
  });
  return { step: 0, features };
}
