/** A child process that keeps batches and measures itself: asked by lines, answered by a line, float32 after either. */

import { extentsOf } from "../batches.ts";
import { nameOf, spawn } from "../ranks.ts";
import type { Candidate, Contender, Work } from "./subject.ts";

export interface Child extends AsyncDisposable {
  readonly greeting: string;
  /** Answers a line, with float32 after it, by a line. */
  readonly ask: (line: string, ...payload: readonly Float32Array<ArrayBuffer>[]) => Promise<string>;
  readonly readFloats: (length: number) => Promise<Float32Array>;
}

/** Seconds after which an unanswered child is killed: the slowest works on tensors of 320 MB. */
const PATIENCE = 240;

export async function startChild(
  [program, ...args]: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Child> {
  const name = nameOf(program);
  const pipes = { stdin: "piped", stdout: "piped", stderr: "piped" } as const;
  const process = spawn(program, { args, env, ...pipes });
  const complaint = new Response(process.stderr).text();
  const writer = process.stdin.getWriter();
  const reader = process.stdout.getReader({ mode: "byob" });

  const read = async (bytes: number): Promise<Uint8Array<ArrayBuffer>> => {
    const timer = setTimeout(() => process.kill("SIGKILL"), 1e3 * PATIENCE);
    try {
      const { value } = await reader.read(new Uint8Array(bytes), { min: bytes });
      if (value?.length === bytes) return value;
    } finally {
      clearTimeout(timer);
    }
    const { code } = await process.status;
    const said = (await complaint).trim().split("\n").at(-1) || "it said nothing";
    throw new Error(`${name} ended with code ${code}: ${said}`);
  };
  const readLine = async (): Promise<string> => {
    for (let line = "";;) {
      const [byte] = await read(1); // Lines are short, and floats follow.
      if (byte === 10) return line;
      line += String.fromCharCode(byte);
    }
  };
  const readFloats = async (length: number): Promise<Float32Array> =>
    new Float32Array((await read(length * Float32Array.BYTES_PER_ELEMENT)).buffer);
  const ask: Child["ask"] = async (line, ...payload) => {
    await writer.write(new TextEncoder().encode(`${line}\n`));
    for (const { buffer, byteOffset, byteLength } of payload) {
      await writer.write(new Uint8Array(buffer, byteOffset, byteLength));
    }
    return await readLine();
  };
  return {
    greeting: await readLine(),
    ask,
    readFloats,
    [Symbol.asyncDispose]: async () => {
      await writer.close().catch(() => {}); // It may have ended.
      await reader.cancel();
      await process.status;
      await complaint;
    },
  };
}

/** A program that speaks the protocol of `limit.c`, and the rows that it makes with each number of threads. */
export interface Program {
  readonly name: string;
  readonly command: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** What its greeting is the version of, with a space after it. */
  readonly versionOf?: string;
  readonly threads: readonly number[];
  /** Names of rows by the stores that they ask for. */
  readonly stores: Readonly<Record<string, string>>;
  /** The name of the row of its plain copy. */
  readonly copy?: string;
}

export async function startProgram(
  { name, command, env, versionOf = "", threads, stores, copy }: Program,
): Promise<Candidate> {
  let child: Child;
  try {
    child = await startChild(command, env);
  } catch (error) {
    return { name, threads: 0, missing: (error as Error).message };
  }
  const order = async (...line: Parameters<Child["ask"]>) => {
    const answer = await child.ask(...line);
    if (answer === "ready") return;
    throw new Error(`Cannot ask ${name} to ${line[0]} as it must say ready: it says ${answer}`);
  };
  return {
    ...{ name, threads: 0, version: `${versionOf}${child.greeting}` },
    open: async (shape, { x, dy, weight, bias }) => {
      const { samples, channels, inner } = extentsOf(shape);
      const words = [shape.format, samples, channels, inner, ...shape.shape.slice(2)];
      await order(`prepare ${words.join(" ")}`, x, dy, weight, bias);
      const contenders: Contender[] = [];
      for (const count of threads) {
        for (const [way, name] of Object.entries(stores)) {
          const run = (work: Work, calls: number) =>
            child.ask(`run ${work} ${count} ${way} ${calls}`);
          if (await run("forward", 1) === "none") continue;
          // By its own clock, in nanoseconds.
          const time = async (work: Work, calls: number) => Number(await run(work, calls)) / 1e6;
          const results = async () => {
            await order(`results ${count} ${way}`);
            return {
              y: await child.readFloats(x.length),
              dx: await child.readFloats(x.length),
              gradWeight: await child.readFloats(channels),
              gradBias: await child.readFloats(channels),
            };
          };
          contenders.push({ name, threads: count, works: ["forward", "both"], time, results });
          if (copy && way === "plain") {
            contenders.push({ name: copy, threads: count, works: ["copy"], time });
          }
        }
      }
      return { contenders, [Symbol.asyncDispose]: () => order("free") };
    },
    [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
  };
}
