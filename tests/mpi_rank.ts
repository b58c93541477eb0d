/**
 * One rank of a world of the MPI kit, started by a launcher: does one task after the other that is laid into the folder given
 * as the argument, on a sub-group of as many ranks as it wants, and leaves there what came of each. The tasks of all modules
 * and this are one file: see bundled.ts.
 */

import { deserialize, serialize } from "node:v8";
import { CollectiveError, type ProcessGroup } from "../mod.ts";
import { type MpiGroup, mpiGroup, type MpiOptions } from "../lib/groups/mpi.ts";
import { gathered } from "./tasks.ts";

/** What a rank has to do. */
export interface Order {
  readonly module: string;
  readonly name: string;
  readonly parameter: unknown;
  /** How many ranks take part: the first of the world. */
  readonly ranks: number;
  /** Whether they get the world itself, and not a group that is split from it. */
  readonly whole: boolean;
}

/** What came of it. */
export type Report =
  | { readonly result: unknown }
  | {
    readonly name: string;
    readonly message: string;
    readonly code?: CollectiveError["code"];
    readonly ranks?: readonly number[];
    /** When it was thrown, in ms. */
    readonly at: number;
  };

/** After how many seconds a rank is ended by its own alarm: whatever it hangs in, without anything to do, in its end. */
const [AT_WORK, IDLE, AT_END] = [38, 300, 10];
/** How long to wait between two looks for something to do, in ms; the longer there was nothing, the longer. */
const [SOON, LATER] = [2, 25];

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

type Bodies = Readonly<
  Record<string, (group: ProcessGroup, parameter: unknown) => Promise<unknown>>
>;

/** The program of a rank that does the tasks of modules. */
export function programOf(addresses: readonly string[]): string {
  return [
    gathered(addresses),
    `import { serve } from "${import.meta.url}";`,
    "await serve(modules);",
  ].join("\n");
}

/** Writes a file that is whole as soon as it is there. */
export function leave(folder: string, name: string, what: unknown): void {
  Deno.writeFileSync(`${folder}/part.${name}`, serialize(what));
  Deno.renameSync(`${folder}/part.${name}`, `${folder}/${name}`);
}

/** Reads a file that may not be there yet. */
export function find<T>(folder: string, name: string): T | undefined {
  try {
    return deserialize(Deno.readFileSync(`${folder}/${name}`));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
}

function failureOf(error: unknown): Report {
  const { name, message } = error as Error;
  const at = Date.now();
  if (!(error instanceof CollectiveError)) return { name, message, at };
  return { name, message, at, code: error.code, ranks: error.ranks };
}

/** The group of a task, for those who take part in it. */
async function groupOf(world: MpiGroup, { ranks, whole }: Order): Promise<ProcessGroup | null> {
  if (whole) return world;
  const takesPart = world.rank < ranks;
  const group = await world.split(takesPart ? 0 : 1);
  return takesPart ? group : null;
}

/** Waits for something to do; null is the end, which it also is where nobody is left to ask. */
async function nextOrder(
  folder: string,
  turn: number,
  isLeft: () => boolean,
): Promise<Order | null> {
  for (let ms = SOON;; ms = Math.min(1.2 * ms, LATER)) {
    const order = find<Order | null>(folder, `order.${turn}`);
    if (order !== undefined) return order;
    if (isLeft()) return null; // As after tests that a filter has cut off from their end.
    await pause(ms);
  }
}

/** Does what the folder asks for of the tasks of modules, until it asks for the end. */
export async function serve(modules: Readonly<Record<string, Bodies>>): Promise<void> {
  const [folder] = Deno.args;
  const options = find<MpiOptions>(folder, "options");
  const { symbols } = Deno.dlopen("libc.so.6", {
    alarm: { parameters: ["u32"], result: "u32" },
    kill: { parameters: ["i32", "i32"], result: "i32" },
  });
  const tests = find<number>(folder, "tests")!;
  const isLeft = () => symbols.kill(tests, 0) !== 0;
  symbols.alarm(AT_WORK);
  const world = mpiGroup(options);
  for (let turn = 0;; turn++) {
    symbols.alarm(IDLE);
    const order = await nextOrder(folder, turn, isLeft);
    symbols.alarm(order === null ? AT_END : AT_WORK);
    if (order === null) break;
    const group = await groupOf(world, order);
    if (!group) continue;
    const report: Report = await modules[order.module][order.name](group, order.parameter)
      .then((result) => ({ result }), failureOf);
    leave(folder, `report.${turn}.${world.rank}`, report);
  }
  const end: string = await world.close().then(() => "", (error) => error.message);
  leave(folder, `end.${world.rank}`, end);
  if (end !== "") world.abort();
}
