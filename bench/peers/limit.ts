/**
 * The limit, in C: compiled for this machine, with ordinary stores and with such as bypass the caches, which Wasm cannot
 * say; a plain copy by the same program; and the program with vectors as short as those of Wasm.
 */

import { startChild } from "./child.ts";
import type { Candidate, Contender, Opened, Work } from "./subject.ts";

/** The name of the row that ours is held against. */
export const LIMIT = "C";
/** The name of the row of the program that has no longer vectors than Wasm. */
export const NARROW = "C, vectors of 128 bits";
/** The name of the row of the copy. */
export const COPY = "plain copy in C";

const STORES = { plain: LIMIT, streaming: "C, stores past the caches" } as const;
/** `-fno-math-errno` lets the compiler take eight square roots at a time. */
export const FLAGS = ["-O3", "-march=native", "-fno-math-errno"] as const;
/** Four lanes, with the instructions of AVX and FMA, as engines compile SIMD128. */
const NARROW_FLAGS = [...FLAGS, "-mno-avx512f", "-DLANES=4"] as const;

/** Compiles the program and starts it. */
export async function limitSubject(
  { folder, threads, narrow = false }: {
    readonly folder: URL;
    readonly threads: readonly number[];
    readonly narrow?: boolean;
  },
): Promise<Candidate> {
  await Deno.mkdir(folder, { recursive: true });
  const path = (url: URL) => decodeURIComponent(url.pathname);
  const [source, program] = [
    new URL("limit.c", import.meta.url),
    new URL(narrow ? "limit128" : "limit", folder),
  ].map(path);
  const subject = narrow ? NARROW : LIMIT;
  const absent = (missing: string) => ({ name: subject, threads: 0, missing });
  try {
    const args = [...narrow ? NARROW_FLAGS : FLAGS, "-o", program, source, "-lm", "-pthread"];
    const { success, stderr } = await new Deno.Command("gcc", { args }).output();
    if (!success) return absent(`gcc failed: ${new TextDecoder().decode(stderr).split("\n")[0]}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return absent("there is no gcc");
    throw error;
  }
  const child = await startChild([program]);
  return {
    name: subject,
    threads: 0,
    version: child.greeting,
    open: async (shape, numbers): Promise<Opened> => {
      await child.prepare(shape, numbers);
      const contenders: Contender[] = [];
      for (const count of threads) {
        for (const [stores, name] of Object.entries(narrow ? { plain: NARROW } : STORES)) {
          if (await child.run(`forward ${count} ${stores} 1`) === null) continue;
          const time = async (work: Work, calls: number) =>
            await child.run(`${work} ${count} ${stores} ${calls}`) ?? NaN;
          const results = () => child.results(`${count} ${stores}`, shape);
          contenders.push({ name, threads: count, works: ["forward", "both"], time, results });
          if (name === LIMIT) {
            contenders.push({ name: COPY, threads: count, works: ["copy"], time });
          }
        }
      }
      return { contenders, [Symbol.asyncDispose]: child.free };
    },
    [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
  };
}
