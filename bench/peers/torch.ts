/** PyTorch on the CPU, where a Python has it. */

import { pathOf } from "../ranks.ts";
import { startProgram } from "./child.ts";
import type { Candidate } from "./subject.ts";

export const TORCH = "PyTorch";

/** glibc gives memory of large tensors back at every free, and the next call pays for every page again: not here. */
const KEEP_MEMORY = { MALLOC_MMAP_MAX_: "0", MALLOC_TRIM_THRESHOLD_: String(2 ** 40) };

export function torchSubject(python: string, threads: readonly number[]): Promise<Candidate> {
  return startProgram({
    ...{ name: TORCH, versionOf: "PyTorch ", threads, stores: { plain: TORCH } },
    command: [python, "-u", pathOf(import.meta.url, "torch_child.py")],
    env: KEEP_MEMORY,
  });
}
