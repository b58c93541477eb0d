/** PyTorch on the CPU, where a Python has it. */

import { startChild } from "./child.ts";
import type { Candidate } from "./subject.ts";

/** The name of its rows. */
export const TORCH = "PyTorch";

/** glibc gives memory of large tensors back at every free, and the next call pays for every page again: not here. */
const KEEP_MEMORY = { MALLOC_MMAP_MAX_: "0", MALLOC_TRIM_THRESHOLD_: String(2 ** 40) };

/** Starts it. */
export async function torchSubject(
  { python, threads }: { readonly python: string; readonly threads: readonly number[] },
): Promise<Candidate> {
  const script = decodeURIComponent(new URL("torch_child.py", import.meta.url).pathname);
  try {
    const child = await startChild([python, "-u", script], KEEP_MEMORY);
    return {
      name: TORCH,
      threads: 0,
      version: `PyTorch ${child.greeting}`,
      open: async (shape, numbers) => {
        await child.prepare(shape, numbers);
        return {
          contenders: threads.map((count) => ({
            name: TORCH,
            threads: count,
            works: ["forward", "both"],
            time: async (work, calls) => await child.run(`${work} ${count} plain ${calls}`) ?? NaN,
            results: () => child.results(`${count} plain`, shape),
          })),
          [Symbol.asyncDispose]: child.free,
        };
      },
      [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
    };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      return { name: TORCH, threads: 0, missing: "there is no such Python" };
    }
    if (!(error instanceof Error)) throw error;
    return { name: TORCH, threads: 0, missing: error.message };
  }
}
