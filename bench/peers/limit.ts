/**
 * The limit, in C: compiled for this machine, with ordinary stores and with such as bypass the caches, which Wasm cannot
 * say; a plain copy by the same program; and the program with vectors as short as those of Wasm.
 */

import { pathOf, run } from "../ranks.ts";
import { startProgram } from "./child.ts";
import type { Candidate } from "./subject.ts";

/** The name of the row that ours is held against. */
export const LIMIT = "C";
/** The name of the row of the program that has no longer vectors than Wasm. */
export const NARROW = "C, vectors of 128 bits";
export const COPY = "plain copy in C";

const STORES = { plain: LIMIT, streaming: "C, stores past the caches" } as const;
/** `-fno-math-errno` lets the compiler take eight square roots at a time. */
const FLAGS = ["-O3", "-march=native", "-fno-math-errno"] as const;
/** Four lanes, with the instructions of AVX and FMA, as engines compile SIMD128. */
const NARROW_FLAGS = [...FLAGS, "-mno-avx512f", "-DLANES=4"] as const;
const SECONDS = 60;

export async function limitSubject(
  { folder, threads, narrow = false }: {
    readonly folder: URL;
    readonly threads: readonly number[];
    readonly narrow?: boolean;
  },
): Promise<Candidate> {
  const { name, flags, built, ...rows } = narrow
    ? { name: NARROW, flags: NARROW_FLAGS, built: "limit128", stores: { plain: NARROW } }
    : { name: LIMIT, flags: FLAGS, built: "limit", stores: STORES, copy: COPY };
  const program = pathOf(folder.href, built);
  const source = pathOf(import.meta.url, "limit.c");
  try {
    await Deno.mkdir(folder, { recursive: true });
    await run(["gcc", ...flags, "-o", program, source, "-lm", "-fopenmp"], SECONDS);
  } catch (error) {
    return { name, threads: 0, missing: `not compiled: ${(error as Error).message}` };
  }
  return await startProgram({ name, command: [program], threads, ...rows });
}
