/**
 * PyTorch on CUDA, in a process of its own that is asked case by case.
 *
 * @module
 */

import type { Case, Work } from "./cases.ts";

/** PyTorch's kernels as SyncBatchNorm launches them, without its collectives. */
export const SYNC_KERNELS = "SyncBatchNorm's kernels";
/** Everything that it is asked for, as the child calls it. */
export const TORCH_ROWS = [SYNC_KERNELS, "F.batch_norm, cuDNN", "F.batch_norm"] as const;

/** Milliseconds per call, by row and work. */
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

const CHILD = new URL("torch_child.py", import.meta.url);

/**
 * Starts the child.
 *
 * @param python a Python that may have PyTorch with CUDA
 * @returns what asks it
 */
export async function startTorch(python: string): Promise<Torch> {
  const nobody = (missing: string): Torch => ({
    ...{ version: "", missing },
    measure: () => Promise.resolve(null),
    ranks: () => Promise.resolve(null),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
  let process: Deno.ChildProcess;
  try {
    const args = [decodeURIComponent(CHILD.pathname)];
    process = new Deno.Command(python, { args, stdin: "piped", stdout: "piped", stderr: "null" })
      .spawn();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return nobody(`there is no ${python}`);
    throw error;
  }
  const writer = process.stdin.getWriter();
  const reader = process.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  const readLine = async (): Promise<string> => {
    while (!pending.includes("\n")) {
      const { value, done } = await reader.read();
      if (done) throw new Error("the Python process has ended");
      pending += value;
    }
    const end = pending.indexOf("\n");
    const line = pending.slice(0, end);
    pending = pending.slice(end + 1);
    return line;
  };
  const end = async () => {
    await writer.close().catch(() => {}); // It may have ended.
    await reader.cancel();
    await process.status;
  };
  const { version, gpu, missing } = JSON.parse(await readLine());
  if (missing) {
    await end();
    return nobody(missing);
  }
  const ask = async (question: object) => {
    await writer.write(new TextEncoder().encode(`${JSON.stringify(question)}\n`));
    const { missing, ...answer } = JSON.parse(await readLine());
    if (missing) console.error(`  PyTorch: ${missing}`);
    return missing ? null : answer;
  };
  return {
    version: `${version} on ${gpu}`,
    missing: null,
    measure: ({ batch: { shape, format }, dtype, fused }, rounds) =>
      fused ? Promise.resolve(null) : ask({ shape, format, dtype, rounds }),
    ranks: async (shape) => (await ask({ shape, ranks: true }))?.both ?? null,
    [Symbol.asyncDispose]: end,
  };
}
