/**
 * `deno task demo`: shows on real data that replicas with syncbn learn what one process learns.
 *
 * @module
 */

import { planRuns } from "./compare.ts";
import { demonstrate } from "./demonstrate.ts";
import { noAdapter, openPlace } from "./devices.ts";
import { type Digits, readDigits } from "./digits.ts";
import { commandOf, DEMO, type DemoFlags, type RunCommand } from "./flags.ts";
import { startedRanks, startRanks } from "./mpi_launch.ts";
import { joinRanks } from "./mpi_rank.ts";
import { checkWorkers, dropMpi } from "./permissions.ts";
import { runProgram } from "./run_program.ts";
import { inProcessRunner, workerRunner } from "./runners.ts";

/** Runs the demo and returns its exit code. */
async function main(flags: DemoFlags, args: readonly string[]): Promise<number> {
  const command = commandOf(flags, startedRanks);
  const digits = await readDigits(await Deno.readFile(new URL("./digits.bin.gz", import.meta.url)));
  if (command.group !== "mpi") return await runHere(command, digits);
  return await (startedRanks() === undefined
    ? startRanks(command, args)
    : joinRanks(command, digits));
}

/** The demo with all replicas in this process. */
async function runHere(command: RunCommand, digits: Digits): Promise<number> {
  const { group, device, exact, progress, options } = command;
  await dropMpi();
  const inWorkers = group === "workers";
  if (inWorkers) await checkWorkers();
  await using place = await openPlace(device, exact);
  if (place === null) throw noAdapter();
  return await place.onLayers((layers) => {
    const one = inProcessRunner(layers, digits);
    const replicas = inWorkers ? workerRunner(place.device, digits, exact) : one;
    return demonstrate({ one, replicas }, {
      ...{ digits, group, exact, device: place.title },
      ...(inWorkers && { replicas: "workers" }),
      plan: planRuns(digits.training.count, options),
      bar: progress === "auto" ? Deno.stdout.isTerminal() : progress === "bar",
    });
  });
}

if (import.meta.main) {
  Deno.exit(await runProgram(DEMO, Deno.args, (flags) => main(flags, Deno.args)));
}
