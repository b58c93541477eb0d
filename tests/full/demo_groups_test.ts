/** The demo's replicas as threads and as processes: what they learn is what tasks of one thread learn. */

import assert from "node:assert/strict";
import { referenceDevice } from "../../mod.ts";
import type { MpiFamily } from "../../lib/groups/mpi.ts";
import { parseCommandLine } from "../../examples/command_line.ts";
import { commandOf, DEMO, type RunCommand } from "../../examples/flags.ts";
import { hostLayers } from "../../examples/host_layers.ts";
import { inProcessRunner, workerRunner } from "../../examples/runners.ts";
import { demo, digits, fromRoot, NARROW, NO_ADAPTER, planWith, taskFlags } from "../demo_kit.ts";
import { hasMpi, launch, withFolder } from "../mpi_kit.ts";
import { fullTests } from "../tier.ts";

const test = fullTests("demo");

const permissions = await taskFlags();

/** A test with a family of MPI, where it is there. */
async function mpiTest(family: MpiFamily, name: string, body: () => Promise<void>): Promise<void> {
  test(name, body, { ignore: !await hasMpi(family) });
}

test("the demo's workers learn what tasks of one thread learn, bit for bit", async () => {
  const options = { replicas: 3, batch: 2, epochs: 1, stopAfter: 3, seed: 3 };
  const { runs, steps } = planWith([3], options);
  const here = inProcessRunner(hostLayers(referenceDevice()), digits);
  const there = workerRunner("reference", digits);
  for (const { task } of [runs.sync, runs.local, runs.none]) {
    assert(task);
    const seen: number[] = [];
    const expected = await here(task);
    const { exams, snapshots } = await there(task, (step) => seen.push(step));
    assert.equal(snapshots.size, steps);
    assert.deepEqual([snapshots, exams], [expected.snapshots, expected.exams]);
    assert.deepEqual(seen, [1, 2, 3]);
  }
});

test("the demo on workers shows what it shows on one thread", async () => {
  const flags = ["--steps", "2", "--replicas", "2", "--device", "wasm"];
  const [here, there] = [
    await demo(flags, { permissions }),
    await demo([...flags, "--group", "workers"], { permissions }),
  ];
  assert.deepEqual([here.code, there.code, there.stderr], [0, 0, [""]]);
  assert.match(there.stdout, /^Replicas: 2 workers, with 2 images each$/m);
  assert.match(there.stdout, /each from a thread of its own,$/m);
  const numbers = (text: string) => withoutTimes(text.slice(text.indexOf("Device:")));
  assert.equal(
    numbers(there.stdout),
    numbers(here.stdout).replace("from one thread", "each from a thread of its own"),
  );
});

test("the demo refuses names of groups and launchers that there are not", () => {
  const calls: [string[], RegExp][] = [
    [["--group", "gpu"], /^--group must be in-process, workers or mpi: current value is "gpu"/],
    [["--group"], /^--group must be .*: it has none/],
    [["--group", "mpi", "--mpi", "lam"], /^--mpi must be openmpi or mpich: current value is "lam"/],
    [["--progress", "dots"], /^--progress must be auto, bar or lines: current value is "dots"/],
  ];
  for (const [flags, text] of calls) {
    const line = parseCommandLine(DEMO, flags);
    assert(line.kind === "wrong");
    assert.match(line.reason, text);
  }
});

test("the demo refuses flags of its groups that do not go together", () => {
  const under = (launched: number | undefined) => (...flags: string[]) => {
    const line = parseCommandLine(DEMO, flags);
    assert(line.kind === "run");
    return commandOf(line.values, () => launched);
  };
  const [alone, joined] = [under(undefined), under(3)];
  const calls: [() => RunCommand, RegExp][] = [
    [() => alone("--mpi", "mpich"), /--mpi must come with --group mpi: the group is in-process/],
    [
      () => joined("--group", "mpi", "--replicas", "4"),
      /--replicas must be left out, or .* started, 3: current value is 4/,
    ],
    [() => joined("--group", "mpi", "--batch", "1"), /replicas times batch .*: .* is 3 x 1/],
    [() => alone("--batch", "360"), /replicas times batch must be from 4 to 1437.*: .* 4 x 360/],
  ];
  for (const [call, message] of calls) assert.throws(call, { name: "StartError", message });
  assert.equal(joined("--group", "mpi").options.replicas, 3);
  assert.equal(joined("--group", "workers").options.replicas, 4);
  assert.equal(alone("--group", "mpi", "--replicas", "2").options.replicas, 2);
});

test("the demo says in one line what keeps a group from starting", async () => {
  const calls: [string[], Parameters<typeof demo>[1], RegExp][] = [
    [["--group", "workers"], {}, /--group workers must be allowed to read .*--allow-read=/],
    [["--group", "mpi"], {}, /--group mpi must be allowed to read .*--allow-env=/],
    [
      ["--group", "mpi"],
      { permissions: [...NARROW, "--allow-env"] },
      /--group mpi must be allowed to run mpirun/,
    ],
    [
      ["--group", "mpi"],
      { permissions, env: { PATH: fromRoot("examples") } },
      /--group mpi must find mpirun: .*apt-get install openmpi-bin/,
    ],
    [
      ["--group", "workers", "--device", "webgpu"],
      { permissions, env: NO_ADAPTER },
      /--device webgpu must find an adapter: there is none/,
    ],
  ];
  for (const [flags, options, text] of calls) {
    const { code, stdout, stderr } = await demo(flags, options);
    assert.deepEqual([code, stdout, stderr.length], [2, "", 1], stderr.join("\n"));
    assert.match(stderr[0], /^Cannot start the demo as /);
    assert.match(stderr[0], text);
  }
});

test("the demo hands back what it may do for MPI alone", async () => {
  const script = `
    import { dropMpi } from "${new URL("../../examples/permissions.ts", import.meta.url)}";
    await dropMpi();
    const names = ["run", "ffi", "env", "read", "write"] as const;
    const wanted = names.map((name) => Deno.permissions.query(
      name === "read" ? { name, path: "${fromRoot("examples")}" } :
      name === "write" ? { name, path: "out" } :
      name === "run" ? { name, command: "mpirun" } :
      name === "env" ? { name, variable: "PMI_SIZE" } : { name }
    ));
    console.log((await Promise.all(wanted)).map(({ state }) => state).join());`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--ext=ts", ...permissions, "-"],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(script));
  await writer.close();
  const { stdout } = await child.output();
  assert.equal(
    new TextDecoder().decode(stdout).trim(),
    "prompt,prompt,prompt,granted,granted",
  );
});

for (const [family, name] of [["Open MPI", "openmpi"], ["MPICH", "mpich"]] as const) {
  const flags = ["--group", "mpi", "--mpi", name, "--replicas", "2"];

  await mpiTest(family, `the demo starts processes of ${family} that equal one`, async () => {
    const { code, stdout, stderr } = await demo(
      [...flags, "--steps", "3", "--device", "wasm"],
      { permissions },
    );
    assert.equal(code, 0, stderr.join("\n"));
    assert.match(stdout, new RegExp(`^Replicas: 2 processes \\(${family} .*\\), with 2`, "m"));
    assert.match(stdout, /^5\/5 no norm, 2 x 2: 3 steps/m);
    assert.match(stdout, /^2 replicas with syncbn equal one process\.$/m);
    assert.match(stdout, /^Chart: out\/demo\.svg$/m);
    assert.equal(stdout.match(/^Chart/gm)?.length, 1);
  });

  await mpiTest(family, `the demo's processes of ${family} end with 2 together`, async () => {
    const { code, stdout, stderr } = await demo(
      [...flags, "--device", "webgpu"],
      { permissions, env: NO_ADAPTER },
    );
    assert.equal(code, 2, stderr.join("\n"));
    assert.equal(stdout, "");
    const said = stderr.filter((line) => line.startsWith("Cannot"));
    assert.equal(said.length, 1, stderr.join("\n"));
    assert.match(said[0], /--device webgpu must find an adapter on every rank: rank 0 has none/);
  });

  await mpiTest(family, `a signal to the demo ends its processes of ${family}`, async () => {
    // To be found by: no other process has it.
    const seed = `${2 ** 30 + Math.floor(Math.random() * 2 ** 30)}`;
    const { code } = await demo([...flags, "--device", "reference", "--seed", seed], {
      permissions,
      meanwhile: async (child) => {
        for (let i = 0; i < 400 && (await processesWith(seed)).length < 4; i++) await pause(50);
        await pause(500); // Some have joined, some may be about to.
        child.kill("SIGINT");
      },
    });
    assert.equal(code, 130);
    assert.deepEqual(await processesWith(seed), []);
  });
}

await mpiTest("MPICH", "the demo starts no more processes of MPICH than cores", async () => {
  const replicas = `${navigator.hardwareConcurrency + 1}`;
  const { code, stderr } = await demo(
    ["--group", "mpi", "--mpi", "mpich", "--replicas", replicas],
    { permissions },
  );
  assert.deepEqual([code, stderr.length], [2, 1]);
  assert.match(stderr[0], /--replicas must be at most the number of cores.*--mpi openmpi$/);
});

await mpiTest("Open MPI", "the demo under a launcher takes no other number", async () => {
  const script = [fromRoot("examples/demo.ts"), "--group", "mpi", "--replicas", "3"];
  const { code, stdout, stderr } = await withFolder((folder) =>
    launch("Open MPI", 2, script, { folder, permissions })
  );
  assert.deepEqual([code, stdout], [2, ""]);
  assert.match(
    stderr,
    /^Cannot start the demo as --replicas must be left out, or be what mpirun has started, 2: .* 3 /m,
  );
});

test("the demo with --exact has the digest of one process on workers", async () => {
  const flags = ["--exact", "--steps", "2", "--replicas", "2", "--group", "workers"];
  const { code, stdout } = await demo(flags, { permissions });
  assert.equal(code, 0);
  assert.match(stdout, /^2 replicas with syncbn have the bits of one process\./m);
});

for (const [family, mpi] of [["Open MPI", "openmpi"], ["MPICH", "mpich"]] as const) {
  await mpiTest(
    family,
    `the demo with --exact has the digest of one process on ${family}`,
    async () => {
      const flags = ["--exact", "--steps", "2", "--replicas", "2", "--group", "mpi", "--mpi", mpi];
      const { code, stdout } = await demo(flags, { permissions });
      assert.equal(code, 0);
      assert.match(stdout, /^2 replicas with syncbn have the bits of one process\./m);
    },
  );
}

/** The demo's text without its last column. */
function withoutTimes(text: string): string {
  return text.replace(/ +(ms per step|\d+\.\d\d)$/gm, "");
}

/** Command lines that hold a text. */
async function processesWith(text: string): Promise<readonly string[]> {
  const { stdout } = await new Deno.Command("ps", { args: ["-eo", "args"] }).output();
  return new TextDecoder().decode(stdout).split("\n").filter((line) => line.includes(text));
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
