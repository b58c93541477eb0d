/** Command lines: what is read, what is said, and that every task answers as they do. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { helpOf, integer, on, oneOf, parseCommandLine, text } from "../examples/command_line.ts";
import type { CommandLine, Operands, Program } from "../examples/command_line.ts";
import { runProgram } from "../examples/run_program.ts";
import { startError } from "../examples/start_error.ts";

const ROOT = new URL("../", import.meta.url);
const { tasks }: { tasks: Record<string, { description: string; command: string }> } = JSON.parse(
  await Deno.readTextFile(new URL("deno.json", ROOT)),
);

/** Tasks that are programs with a command line of this kind. */
const PROGRAMS = [
  ...[
    "kernels",
    "demo",
    "page:browser",
    "pytorch",
    "law",
    "test:browser",
    "fuzz",
    "failures",
    "pack",
    "ok",
  ],
];

interface Baking {
  readonly loaves: number;
  readonly minutes: number | undefined;
  readonly flour: "rye" | "wheat";
  readonly note: string | undefined;
  readonly salt: boolean;
}

const BAKERY: Program<Baking> = {
  usage: "deno task bake",
  action: "bake",
  about: "Bakes.",
  flags: {
    loaves: integer({ from: 1, to: 12, usual: 2, help: "how many" }),
    minutes: integer({ from: 0, to: 99, usual: undefined, help: "how long (until it is done)" }),
    flour: oneOf(["rye", "wheat"], { usual: "rye", help: "what of" }),
    note: text({
      takes: "TEXT",
      usual: undefined,
      help: `what to write on it${", x".repeat(40)}`,
    }),
    salt: on("with salt"),
  },
};

const USUAL = { loaves: 2, minutes: undefined, flour: "rye", note: undefined, salt: false };

function parse(args: string, operands?: Operands): CommandLine<Baking> {
  return parseCommandLine({ ...BAKERY, operands }, args.split(" ").filter(Boolean));
}

Deno.test("parseCommandLine() reads flags in either spelling, the last of each, and operands", () => {
  const calls: [string, Partial<Baking>][] = [
    ["", {}],
    ["--loaves 12 --salt", { loaves: 12, salt: true }],
    ["--loaves=1 --minutes=0 --flour=wheat", { loaves: 1, minutes: 0, flour: "wheat" }],
    ["--note a=b --note=--c=d", { note: "--c=d" }],
    ["--loaves 3 --loaves 4", { loaves: 4 }],
  ];
  for (const [args, values] of calls) {
    assert.deepEqual(parse(args), { kind: "run", values: { ...USUAL, ...values }, operands: [] });
  }
  const several = { takes: "OVEN", help: "where", least: 0, most: 3 };
  const line = parse("first --salt second --loaves 5 third", several);
  assert(line.kind === "run");
  assert.deepEqual(line.operands, ["first", "second", "third"]);
  assert.deepEqual(line.values, { ...USUAL, salt: true, loaves: 5 });
  assert.deepEqual(parse("--help"), { kind: "help" });
  assert.deepEqual(parse("--salt --help --loaves none"), { kind: "help" });
});

Deno.test("parseCommandLine() says in one line what is wrong", () => {
  const one = { takes: "OVEN", help: "where", least: 1, most: 1 };
  const calls: [string, RegExp, Operands?][] = [
    ["--loaves 0", /^--loaves must be an integer from 1 to 12: current value is "0"/],
    ["--loaves 13", /current value is "13"/],
    ["--loaves 1e1", /current value is "1e1"/],
    ["--loaves -1", /current value is "-1"/],
    ["--loaves=", /current value is ""/],
    ["--loaves", /^--loaves must be an integer from 1 to 12: it has none/],
    ["--flour oats", /^--flour must be rye or wheat: current value is "oats"/],
    ["--note=", /^--note must be a text/],
    ["--salt=yes", /^--salt takes no value: current value is "yes"/],
    ["--help=me", /^--help takes no value: current value is "me"/],
    ["--loaf 1", /^--loaf is none of --loaves, --minutes, --flour, --note, --salt, --help/],
    ["--toString", /^--toString is none of/],
    ["-h", /^-h is none of/],
    ["--", /^-- is none of/],
    ["bread", /^it takes flags only: current argument is "bread"/],
    ["", /^it takes 1 OVEN: current number is 0/, one],
    ["a b", /^it takes 1 OVEN: current number is 2/, one],
    ["a b c", /^it takes 1 to 2 OVEN: current number is 3/, { ...one, most: 2 }],
  ];
  for (const [args, reason, operands] of calls) {
    const line = parse(args, operands);
    assert(line.kind === "wrong", args);
    assert.match(line.reason, reason);
    assert.match(line.reason, /^[^\n]* \(see --help\)$/);
  }
});

Deno.test("helpOf() names every flag with what it is where it is left out, in 100 columns", () => {
  const help = helpOf({ ...BAKERY, notes: "Nothing else." });
  assert.match(help, /^Bakes\.\n\nUsage: deno task bake \[flags\]\n\n/);
  assert.match(help, /^ {2}--loaves N {4}how many \(2\)$/m);
  assert.match(help, /^ {2}--minutes N {3}how long \(until it is done\)$/m);
  assert.match(help, /^ {2}--flour NAME {2}what of \(rye\)$/m);
  assert.match(help, /^ {2}--note TEXT {3}what to write .*x,\n {16}x, x/m);
  assert.match(help, /^ {2}--salt {8}with salt$/m);
  assert.match(help, /^ {2}--help {8}print this\n\nNothing else\.$/m);
  assert(help.split("\n").every((line) => line.length <= 100 && line === line.trimEnd()));
  const operands = { takes: "OVEN", help: "where", least: 0, most: Infinity };
  assert.match(
    helpOf({ ...BAKERY, operands }),
    /task bake \[OVEN\.\.\.\] \[flags\]\n\n {2}OVEN +where/,
  );
});

Deno.test("runProgram() lets the errors through that its user cannot mend", async () => {
  const failing = (error: Error) => () => runProgram(BAKERY, [], () => Promise.reject(error));
  await assert.rejects(failing(new TypeError("ours")), { name: "TypeError", message: "ours" });
  const said: unknown[] = [];
  const { error } = console;
  console.error = (line: unknown) => said.push(line);
  try {
    assert.equal(await failing(startError("there must be an oven: there is none"))(), 2);
    const lacking = new Deno.errors.NotCapable(
      'Requires read access to "yeast", run again with the --allow-read flag',
    );
    assert.equal(await failing(lacking)(), 2);
  } finally {
    console.error = error;
  }
  assert.deepEqual(said, [
    "Cannot bake as there must be an oven: there is none",
    'Cannot bake as Deno must allow read access to "yeast": it does not; ' +
    "deno task bake does, and so does deno run --allow-all",
  ]);
});

Deno.test("every task says in a line what it does", () => {
  for (const [name, { description, command }] of Object.entries(tasks)) {
    assert(description.length > 0 && description.length <= 80, name);
    assert.match(
      command,
      /^deno (run|test|bench)( [^&|;]*)?$/,
      `${name}: flags go to the last of several`,
    );
  }
});

for (const name of PROGRAMS) {
  Deno.test(`deno task ${name} answers --help and wrong flags, and does nothing else`, async () => {
    const help = await started(name, "--help");
    assert.deepEqual([help.code, help.stderr], [0, ""]);
    assert.match(help.stdout, new RegExp(`^Usage: deno task ${name} \\[flags\\]$`, "m"));
    assert(help.stdout.split("\n").every((line) => line.length <= 100));

    const wrong = await started(name, "--nonsense");
    assert.deepEqual([wrong.code, wrong.stdout], [2, ""]);
    assert.match(
      wrong.stderr,
      /^Cannot [^\n]* as --nonsense is none of --[^\n]* \(see --help\)\n$/,
    );
  });
}

for (const name of ["kernels", "fuzz", "ok"]) {
  Deno.test(`deno task ${name} says in one line which permission it lacks`, async () => {
    const [, subcommand, ...rest] = tasks[name].command.split(" ");
    const flags = rest.filter((flag) => !flag.startsWith("--allow-"));
    const { code, stdout, stderr } = await deno(subcommand, ...flags);
    assert.deepEqual([code, stdout], [2, ""], stderr);
    assert.match(stderr, /^Cannot [^\n]* as Deno must allow (read|env) access to [^\n]*\n$/);
  });
}

/** What a task does, started as Deno starts it. */
async function started(name: string, flag: string) {
  const [, subcommand, ...rest] = tasks[name].command.split(" ");
  return await deno(subcommand, ...rest, flag);
}

/** Quietly, as Deno itself says what it downloads to a machine that is new. */
async function deno(subcommand: string, ...rest: string[]) {
  const args = [subcommand, "--quiet", "--no-prompt", ...rest];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    ...{ args, cwd: fileURLToPath(ROOT), stdin: "null", env: { NO_COLOR: "1" } },
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}
