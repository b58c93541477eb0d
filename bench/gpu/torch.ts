/** PyTorch on CUDA, in a process of its own that is asked case by case. */

import { pathOf } from "../ranks.ts";
import { startChild } from "../peers/child.ts";
import type { Case, Work } from "./cases.ts";

/** PyTorch's kernels as SyncBatchNorm launches them, without its collectives. */
export const SYNC_KERNELS = "SyncBatchNorm's kernels";
/** Everything that it is asked for, as the child calls it. */
export const TORCH_ROWS = [SYNC_KERNELS, "F.batch_norm, cuDNN", "F.batch_norm"] as const;

export type TorchTimes = Readonly<Record<string, Partial<Readonly<Record<Work, number>>>>>;

/** PyTorch, or why it is not measured. */
export interface Torch extends AsyncDisposable {
  readonly version: string;
  readonly missing: string | null;
  /** Measures a plain case; null where that cannot be. */
  readonly measure: (one: Case, rounds: number) => Promise<TorchTimes | null>;
  /** Forward and backward of SyncBatchNorm over gloo, two processes on this GPU, in ms; null where that cannot be. */
  readonly ranks: (shape: readonly number[]) => Promise<number | null>;
}

export async function startTorch(python: string): Promise<Torch> {
  const nobody = (missing: string): Torch => ({
    ...{ version: "", missing },
    measure: () => Promise.resolve(null),
    ranks: () => Promise.resolve(null),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
  try {
    const child = await startChild([python, "-u", pathOf(import.meta.url, "torch_child.py")]);
    const { version, gpu, missing } = JSON.parse(child.greeting);
    if (missing) {
      await child[Symbol.asyncDispose]();
      return nobody(missing);
    }
    const ask = async (question: object) => {
      const { missing, ...answer } = JSON.parse(await child.ask(JSON.stringify(question)));
      if (missing) console.error(`  PyTorch: ${missing}`);
      return missing ? null : answer;
    };
    return {
      ...{ version: `${version} on ${gpu}`, missing: null },
      measure: ({ batch: { shape, format }, dtype, fused }, rounds) =>
        fused ? Promise.resolve(null) : ask({ shape, format, dtype, rounds }),
      ranks: async (shape) => (await ask({ shape, ranks: true }))?.both ?? null,
      [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
    };
  } catch (error) {
    return nobody((error as Error).message);
  }
}
