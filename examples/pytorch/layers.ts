/**
 * The first example of PyTorch's page of SyncBatchNorm: layers that share statistics over groups of ranks.
 *
 * @module
 */

import * as bn from "../../mod.ts";
import { look, type Seen } from "./look.ts";
import { randn } from "./data.ts";

/** What {@linkcode layers} shows; plain data. */
export interface SeenLayers {
  /** The layer with learnable parameters, over all ranks. */
  readonly all: Seen;
  /** The layer without, over this rank's half. */
  readonly half: Seen;
}

/**
 * Applies a layer with learnable parameters over all ranks, and one without over this rank's half of them.
 *
 * @param world all ranks
 * @param shape of each rank's input, (N, 100, ...spatial)
 * @returns what both layers did
 */
export async function layers(
  world: bn.ProcessGroup,
  shape: readonly number[],
): Promise<SeenLayers> {
  const device = bn.referenceDevice();
  const half = await world.split(world.rank < world.worldSize / 2 ? 0 : 1);
  const effects = { device, groups: { world, half } };

  // With learnable parameters, over all ranks; without, over one half of them.
  const m = bn.initLayer(device, "batchNorm", 100, { processGroup: "world" });
  const n = bn.initLayer(device, "batchNorm", 100, { affine: false, processGroup: "half" });

  const input = bn.tensor(device, randn(shape, world.rank), shape);
  const overAll = await bn.applyLayer(m, input, effects);
  const overHalf = await bn.applyLayer(n, input, effects);
  return { all: await look(overAll, device, world), half: await look(overHalf, device, half) };
}
