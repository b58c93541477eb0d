/** A child process that keeps batches and measures itself: asked by lines, answered by a line, float32 after either. */

import { type BatchShape, extentsOf, type Numbers } from "../batches.ts";
import type { Results } from "../errors.ts";

/** A process that speaks the protocol of `limit.c`. */
export interface Child extends AsyncDisposable {
  /** What it said when it began. */
  readonly greeting: string;
  /** Answers a line by a line. */
  readonly ask: (line: string) => Promise<string>;
  /** Puts a batch in place of the one before. */
  readonly prepare: (shape: BatchShape, numbers: Numbers) => Promise<void>;
  /** Milliseconds of all calls together, by the child's own clock; null where it cannot. */
  readonly run: (line: string) => Promise<number | null>;
  /** What the line gives on the batch that is in place. */
  readonly results: (line: string, shape: BatchShape) => Promise<Required<Results>>;
  /** Frees the batch. */
  readonly free: () => Promise<void>;
}

/** Seconds after which an unanswered child is killed: the slowest works on tensors of 320 MB. */
const PATIENCE = 240;

/** Starts a child. */
export async function startChild(
  [program, ...args]: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Child> {
  const name = program.split("/").at(-1); // What goes into tables has no path of a machine in it.
  const process = new Deno.Command(program, {
    args,
    env,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const complaint = new Response(process.stderr).text();
  const writer = process.stdin.getWriter();
  const reader = process.stdout.getReader();
  let rest: Uint8Array = new Uint8Array(0);

  const more = async (): Promise<Uint8Array> => {
    const timer = setTimeout(() => process.kill("SIGKILL"), 1e3 * PATIENCE);
    try {
      const { value } = await reader.read();
      if (value) return value;
    } finally {
      clearTimeout(timer);
    }
    const { code } = await process.status;
    const said = (await complaint).trim().split("\n").at(-1) || "it said nothing";
    throw new Error(`${name} ended with code ${code}: ${said}`);
  };
  const readLine = async (): Promise<string> => {
    let line = "";
    for (;;) {
      const end = rest.indexOf(10);
      line += new TextDecoder().decode(rest.subarray(0, end < 0 ? rest.length : end));
      rest = end < 0 ? await more() : rest.subarray(end + 1);
      if (end >= 0) return line;
    }
  };
  const readFloats = async (length: number): Promise<Float32Array> => {
    const values = new Float32Array(length);
    const bytes = new Uint8Array(values.buffer);
    for (let filled = 0; filled < bytes.length;) {
      if (rest.length === 0) rest = await more();
      const taken = rest.subarray(0, bytes.length - filled);
      bytes.set(taken, filled);
      filled += taken.length;
      rest = rest.subarray(taken.length);
    }
    return values;
  };
  const ask = async (line: string, payload: readonly Float32Array<ArrayBuffer>[] = []) => {
    await writer.write(new TextEncoder().encode(`${line}\n`));
    for (const { buffer, byteOffset, byteLength } of payload) {
      await writer.write(new Uint8Array(buffer, byteOffset, byteLength));
    }
    return await readLine();
  };
  const expect = async (line: string, payload?: readonly Float32Array<ArrayBuffer>[]) => {
    const answer = await ask(line, payload);
    if (answer !== "ready") {
      throw new Error(`Cannot ask ${name} to ${line} as it must say ready: it says ${answer}`);
    }
  };

  return {
    greeting: await readLine(),
    ask,
    prepare: async (shape, { x, dy, weight, bias }) => {
      const { samples, channels, inner } = extentsOf(shape);
      const spatial = shape.shape.slice(2);
      const words = [shape.format, samples, channels, inner, ...spatial];
      await expect(`prepare ${words.join(" ")}`, [x, dy, weight, bias]);
    },
    run: async (line) => {
      const answer = await ask(`run ${line}`);
      return answer === "none" ? null : Number(answer) / 1e6;
    },
    results: async (line, shape) => {
      await expect(`results ${line}`);
      const { samples, channels, inner } = extentsOf(shape);
      const elements = samples * channels * inner;
      return {
        y: await readFloats(elements),
        dx: await readFloats(elements),
        gradWeight: await readFloats(channels),
        gradBias: await readFloats(channels),
      };
    },
    free: () => expect("free"),
    [Symbol.asyncDispose]: async () => {
      await writer.close().catch(() => {}); // It may have ended.
      await reader.cancel();
      await process.status;
      await complaint;
    },
  };
}
