/**
 * One rank of a run of the MPI kit, started by a launcher: does its part of the task that lies in the folder given as
 * the argument, and leaves there what came of it. The tasks of a module and this are one file: see bundled.ts.
 */

import { deserialize, serialize } from "node:v8";
import { CollectiveError, type ProcessGroup } from "../mod.ts";
import { mpiGroup, type MpiOptions } from "../lib/groups/mpi.ts";

/** What a rank has to do. */
export interface Order {
  readonly name: string;
  readonly parameter: unknown;
  readonly options: MpiOptions;
  /** After how many seconds the rank is ended by its own alarm, whatever it hangs in. */
  readonly seconds: number;
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

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

type Bodies = Readonly<
  Record<string, (group: ProcessGroup, parameter: unknown) => Promise<unknown>>
>;

/** The program of a rank that does the tasks of a module. */
export function programOf(module: string): string {
  return `import { serve } from "${import.meta.url}"; import * as bodies from "${module}"; await serve(bodies);`;
}

function failureOf(error: unknown): Report {
  const { name, message } = error as Error;
  const at = Date.now();
  if (!(error instanceof CollectiveError)) return { name, message, at };
  return { name, message, at, code: error.code, ranks: error.ranks };
}

/** Waits until every rank has left its report, as long as they may take. */
async function allReported(folder: string, worldSize: number, ms: number): Promise<boolean> {
  for (const until = Date.now() + ms; Date.now() < until; await pause(3)) {
    const reports = [...Deno.readDirSync(folder)].filter(({ name }) => /^report\.\d+$/.test(name));
    if (reports.length === worldSize) return true;
  }
  return false;
}

/** Does what the folder asks for of the tasks of a module. */
export async function serve(bodies: Bodies): Promise<void> {
  const [folder] = Deno.args;
  const order: Order = deserialize(Deno.readFileSync(`${folder}/order`));
  const { symbols } = Deno.dlopen("libc.so.6", { alarm: { parameters: ["u32"], result: "u32" } });
  symbols.alarm(order.seconds);
  const group = mpiGroup(order.options);
  const { rank, worldSize } = group;
  const report: Report = await bodies[order.name](group, order.parameter)
    .then((result) => ({ result }), failureOf);
  Deno.writeFileSync(`${folder}/part.${rank}`, serialize(report));
  Deno.renameSync(`${folder}/part.${rank}`, `${folder}/report.${rank}`);
  // After an error the others may wait for this rank until their deadline.
  const patience = "result" in report ? 1000 * order.seconds : 300;
  if (!await allReported(folder, worldSize, patience)) group.abort();
  await group.close().catch(() => group.abort());
}
