/**
 * The second example of PyTorch's page of SyncBatchNorm: a linear layer and a batch norm, converted, and trained as
 * DistributedDataParallel does it.
 *
 * @module
 */

import * as bn from "../../mod.ts";
import { share } from "./data.ts";
import { initLinear, linear, linearGradients } from "./linear.ts";
import { descend, numbersOf } from "./model.ts";

/** Who trains with what. */
export interface Training {
  /** Whose statistics the batch norm takes: those of all ranks, or of this rank's half. */
  readonly processGroup: "world" | "half";
  /** Number of rows of each rank. */
  readonly counts: readonly number[];
  /** Steps of gradient descent. */
  readonly steps: number;
}

/**
 * Converts the page's model, and trains it over all ranks.
 *
 * @param world all ranks
 * @param training group, rows and steps
 * @returns all numbers of this rank's model afterwards, as of `numbersOf`
 */
export async function train(
  world: bn.ProcessGroup,
  { processGroup, counts, steps }: Training,
): Promise<number[]> {
  const device = bn.referenceDevice();
  const half = await world.split(world.rank < world.worldSize / 2 ? 0 : 1);
  const effects = { device, groups: { world, half } };

  // A model is a tree of plain records. The linear layer is your own: any node, any arithmetic.
  const network = { linear: initLinear(20, 100), norm: bn.initLayer(device, "batchNorm1d", 100) };
  let model = bn.convertSyncBatchNorm(network, { processGroup });
  bn.checkModel(model, effects);

  const { x, wanted } = share(counts, world.rank);
  for (let step = 0; step < steps; step++) {
    const hidden = linear(device, model.linear, x);
    const { output, layer, saved } = await bn.applyLayer(model.norm, hidden, effects);

    // Half the squared errors of a row, averaged over the rows of all ranks, whoever has how many.
    const y = await bn.toArray(device, output);
    const scale = await bn.lossScale(counts[world.rank], world);
    const errors = y.map((value, i) => scale * (value - wanted[i]) / counts[world.rank]);
    const gradOutput = bn.tensor(device, errors, output.shape);

    // As DistributedDataParallel: averaged over all ranks, whatever group the statistics are of.
    const back = await bn.backwardLayer(saved, gradOutput, effects);
    const own = {
      linear: await linearGradients(device, model.linear, x, back.gradInput),
      norm: { weight: back.gradWeight, bias: back.gradBias },
    };
    const mean = await bn.allReduceGradients(own, { device, group: world });
    model = await descend(device, { ...model, norm: layer }, mean, 0.1);
  }
  return await numbersOf(device, model);
}
