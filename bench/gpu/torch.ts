/** PyTorch on CUDA, in a process of its own that is asked case by case. */

import { pathOf } from "../ranks.ts";
import { startChild } from "../peers/child.ts";
import type { Case, Work } from "./cases.ts";

/** PyTorch's kernels as SyncBatchNorm launches them, without its collectives. */
export const SYNC_KERNELS = "SyncBatchNorm's kernels";
export const TORCH_ROWS = [SYNC_KERNELS, "F.batch_norm, cuDNN", "F.batch_norm"] as const;

export type TorchTimes = Readonly<Record<string, Partial<Readonly<Record<Work, number>>>>>;

/** PyTorch; where it cannot do something, that is null. */
export interface Torch extends AsyncDisposable {
  readonly version: string;
  readonly measure: (one: Case, rounds: number) => Promise<TorchTimes | null>;
  /** Forward and backward of SyncBatchNorm over gloo, two processes on this GPU, in ms. */
  readonly ranks: (shape: readonly number[]) => Promise<number | null>;
}

/** Starts a Python; fails where it has no PyTorch with CUDA. */
export async function startTorch(python: string): Promise<Torch> {
  const child = await startChild([python, "-u", pathOf(import.meta.url, "torch_child.py")]);
  const ask = async (question: object) => {
    const { missing, ...answer } = JSON.parse(await child.ask(JSON.stringify(question)));
    if (missing) console.error(`  PyTorch: ${missing}`);
    return missing ? null : answer;
  };
  return {
    version: child.greeting,
    measure: ({ batch: { shape, format }, dtype, fused }, rounds) =>
      fused ? Promise.resolve(null) : ask({ shape, format, dtype, rounds }),
    ranks: async (shape) => (await ask({ shape, ranks: true }))?.both ?? null,
    [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
  };
}
