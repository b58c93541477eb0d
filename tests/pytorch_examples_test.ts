/** PyTorch's page as a program, and its second example against float64 arithmetic. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { train } from "../examples/pytorch/convert.ts";
import { share } from "../examples/pytorch/data.ts";
import { layers } from "../examples/pytorch/layers.ts";
import { initLinear } from "../examples/pytorch/linear.ts";
import { PYTORCH } from "../examples/pytorch/main.ts";
import { bothExamples, STEPS } from "../examples/pytorch/both.ts";
import { LARGEST_DIFFERENCE, report } from "../examples/pytorch/report.ts";
import type { MpiFamily } from "../lib/groups/mpi.ts";
import { runRanks } from "../mod.ts";
import { range, same } from "./data_parallel.ts";
import { assertClose } from "./kit.ts";
import { hasMpi, launch, withFolder } from "./mpi_kit.ts";
import * as oracle from "./oracle.ts";
import { assertRefused } from "./refused_flags.ts";

const root = new URL("../", import.meta.url);
const program = fileURLToPath(new URL("examples/pytorch/main.ts", root));
const { tasks } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
const permissions: string[] = tasks.pytorch.command.split(" ").filter((word: string) =>
  /^--allow/.test(word)
);
const MPI = ["--allow-ffi", "--allow-env=OMPI_COMM_WORLD_SIZE,PMI_SIZE,MPI_LOCALNRANKS"];

Deno.test("PyTorch's page: its training is gradient descent in float64, to rounding", async () => {
  const { numbers, losses } = trainInFloat64(48);
  const training = { counts: [9, 14, 8, 17], steps: STEPS, processGroup: "world" } as const;
  const trained = same(await runRanks(4, (world) => train(world, training)));
  assertClose(trained, numbers, { absolute: LARGEST_DIFFERENCE, relative: 0 }, "numbers");
  losses.slice(1).forEach((loss, i) => assert(loss < losses[i], `step ${i}: ${losses}`));
});

Deno.test("PyTorch's page: learnable parameters begin as none, weight 1 and bias 0", async () => {
  const seen = await runRanks(2, (group) => {
    // Both layers over the same ranks.
    const world = { ...group, split: () => Promise.resolve(group) };
    return layers(world, [4, 100, 3, 2, 2]);
  });
  for (const { all, half } of seen) assert.deepEqual(all, half);
});

Deno.test("PyTorch's page: the program tells when the ranks learn something else", async () => {
  const shape = [2, 100];
  const ranks = await runRanks(3, (world) => bothExamples(world, shape));
  const shown = await report({ called: "3 tasks", ranks }, shape);
  assert(shown.holds, shown.text);
  const [first, ...others] = ranks;
  for (const wrong of ["world", "half"] as const) {
    for (const value of [first[wrong][7] + 2 * LARGEST_DIFFERENCE, NaN]) {
      const other = { ...first, [wrong]: first[wrong].with(7, value) };
      assert(!(await report({ called: "3 tasks", ranks: [other, ...others] }, shape)).holds);
    }
  }
});

Deno.test("PyTorch's page: the program on workers shows what it shows on one thread", async () => {
  const [here, there] = [await run(["--small"], []), await run(["--small", "--group", "workers"])];
  assert.deepEqual([here.code, there.code, here.stderr, there.stderr], [0, 0, "", ""]);
  assert.match(here.stdout, /^PyTorch's page of SyncBatchNorm on 4 tasks of one thread\.$/m);
  assert.match(here.stdout, /^ {2}over all ranks +mean 0 to \S+e-\d, variance 1 to 1\.\de-5, /m);
  assert.match(here.stdout, /^ {2}over all ranks +what one process learns, to \d\.\de-[78]$/m);
  assert.match(here.stdout, /^ {2}over halves +what two processes learn, .* to \d\.\de-[78]$/m);
  assert.equal(there.stdout, here.stdout.replace("4 tasks of one thread", "4 workers"));
});

Deno.test("PyTorch's page: the program answers in one line what it cannot do", async () => {
  await assertRefused(PYTORCH, [
    [["--group", "gpu"], /--group must be in-process, workers or mpi: current value is "gpu"/],
    [["--group"], /--group must be .*: it has none/],
    [["--tiny"], /--tiny is none of --group, --small, --help/],
    [["small"], /it takes flags only: current argument is "small"/],
    [["--small=3"], /--small takes no value: current value is "3"/],
  ]);
  const calls: [string[], RegExp][] = [
    [["--tiny"], /--tiny is none of --group, --small, --help/],
    [["--group", "workers"], /--group workers must be allowed to read .*--allow-read=/],
    [["--group", "mpi"], /--group mpi must have MPI: .*--allow-env=OMPI_COMM_WORLD_SIZE/],
  ];
  for (const [flags, text] of calls) {
    const { code, stdout, stderr } = await run(flags, []);
    assert.deepEqual([code, stdout, stderr.split("\n").length], [2, "", 2], stderr);
    assert.match(stderr, /^Cannot run the examples as /);
    assert.match(stderr, text);
  }
  const { code, stdout } = await run(["--help"], []);
  assert.deepEqual([code, /^Usage: deno task pytorch/m.test(stdout)], [0, true]);
});

for (const family of ["Open MPI", "MPICH"] as const satisfies readonly MpiFamily[]) {
  const ignore = !await hasMpi(family);
  const on = (ranks: number) =>
    withFolder((folder) =>
      launch(family, ranks, [program, "--small", "--group", "mpi"], { folder, permissions: MPI })
    );
  Deno.test({
    name: `${family}: PyTorch's page as a program of processes${ignore ? ` (no ${family})` : ""}`,
    ignore,
    fn: async () => {
      const two = await on(2);
      assert.equal(two.code, 0, two.stderr);
      assert.match(
        two.stdout,
        new RegExp(`^PyTorch's page .* on 2 processes \\(${family}\\)\\.$`, "m"),
      );
      assert.equal(two.stdout.match(/what (one process|two processes) learn/g)?.length, 2);
      const one = await on(1);
      assert.notEqual(one.code, 0);
      assert.match(
        one.stderr,
        /--group mpi must be run by mpirun, -n 2 or more: current number is 1/,
      );
    },
  });
}

/** The second example on one process, in float64 and without any code of the library. */
function trainInFloat64(rows: number): { readonly numbers: number[]; readonly losses: number[] } {
  const { x, wanted } = share([rows], 0);
  const first = initLinear(20, 100);
  let [weight, bias] = [[...first.weight], [...first.bias]];
  let norm = { weight: new Array(100).fill(1), bias: new Array(100).fill(0), eps: 1e-5 };
  let [runningMean, runningVar] = [new Array(100).fill(0), new Array(100).fill(1)];
  const losses: number[] = [];
  const sumOf = (length: number, term: (i: number) => number) =>
    range(length).reduce((total, i) => total + term(i), 0);
  const descend = (from: readonly number[], gradient: (at: number) => number) =>
    from.map((value, at) => value - 0.1 * gradient(at));
  for (let step = 0; step < STEPS; step++) {
    const values = range(100 * rows).map((at) => {
      const [row, column] = [Math.floor(at / 100), at % 100];
      return bias[column] + sumOf(20, (i) => x[20 * row + i] * weight[100 * i + column]);
    });
    const batch = { values, channels: 100, inner: 1 };
    const errors = oracle.trainForward(batch, norm).map((y, i) => y - wanted[i]);
    losses.push(sumOf(errors.length, (i) => errors[i] ** 2) / (2 * rows));
    const back = oracle.trainBackward(batch, errors.map((error) => error / rows), norm);
    const { mean, variance } = oracle.statistics(batch);
    const unbiased = variance.map((value) => value * rows / (rows - 1));
    runningMean = runningMean.map((old, c) => 0.9 * old + 0.1 * mean[c]);
    runningVar = runningVar.map((old, c) => 0.9 * old + 0.1 * unbiased[c]);
    const dx = (row: number, column: number) => back.gradInput[100 * row + column];
    weight = descend(weight, (at) => {
      const [i, column] = [Math.floor(at / 100), at % 100];
      return sumOf(rows, (row) => x[20 * row + i] * dx(row, column));
    });
    bias = descend(bias, (column) => sumOf(rows, (row) => dx(row, column)));
    norm = {
      ...norm,
      weight: descend(norm.weight, (c) => back.gradWeight[c]),
      bias: descend(norm.bias, (c) => back.gradBias[c]),
    };
  }
  const numbers = [weight, bias, norm.weight, norm.bias, runningMean, runningVar].flat();
  return { numbers, losses };
}

/** What comes of the program. */
async function run(flags: readonly string[], allowed = permissions) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--quiet", ...allowed, program, ...flags],
    cwd: root,
    env: { NO_COLOR: "1" },
    stdin: "null",
  }).output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}
