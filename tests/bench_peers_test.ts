import assert from "node:assert/strict";
import { type BatchShape, type Numbers, numbersOf } from "../bench/batches.ts";
import { errorsOf } from "../bench/errors.ts";
import { referenceDevice } from "../mod.ts";
import { CASES } from "../bench/peers/cases.ts";
import { LIMIT, NARROW } from "../bench/peers/limit.ts";
import { type Measured, OURS } from "../bench/peers/measured.ts";
import { KINDS, ONNX } from "../bench/peers/onnxruntime.ts";
import { ourSubject } from "../bench/peers/ours.ts";
import { measureCase, type Measurement } from "../bench/peers/rounds.ts";
import { peersChart, peersSection, timesChart } from "../bench/peers/section.ts";
import type { Subject } from "../bench/peers/subject.ts";
import { verdicts } from "../bench/peers/verdict.ts";

/** Units of the last place of values about 4, and of sums in units of their root: what float32 results may be off by. */
const ROUNDING = 2e-6;

const shapeOf = (shape: readonly number[], format: BatchShape["format"]): BatchShape => ({
  shape,
  format,
});

Deno.test("measureCase() times who is right, and says who is not and why", async () => {
  const shape = shapeOf([4, 3, 5], "channelsLast");
  const right = ourSubject("right", 1, () => Promise.resolve(referenceDevice()));
  const wrong: Subject = {
    ...right,
    name: "wrong",
    open: async (at, numbers) => {
      // Weights of another batch: what comes out looks like a normalized batch.
      const other: Numbers = { ...numbers, weight: numbers.weight.map((value) => value + 1) };
      const opened = await right.open(at, other);
      return { ...opened, contenders: opened.contenders.map((one) => ({ ...one, name: "wrong" })) };
    },
  };
  const broken: Subject = {
    ...right,
    name: "broken",
    open: () => Promise.reject(new Error("out of memory\nand more")),
  };
  const measured = await measureCase(
    [right, wrong, broken],
    shape,
    { rounds: 3, turn: 0.1, warmUp: 0.1 },
  );
  assert.deepEqual(measured.rows.map(({ name, work }) => [name, work]), [["right", "forward"], [
    "right",
    "both",
  ]]);
  for (const { median, fastest } of measured.rows) assert(fastest > 0 && median >= fastest);
  assert.deepEqual(measured.absent.map(({ name }) => name), ["broken", "wrong"]);
  assert.equal(measured.absent[0].missing, "out of memory");
  assert.match(measured.absent[1].missing, /^wrong: y is off by [0-9.]+/);
  const [exact] = measured.checks.map(({ errors }) => errors);
  assert(exact.y < ROUNDING && exact.dx < ROUNDING);
});

Deno.test("errorsOf() calls a NaN infinitely wrong, wherever it stands", () => {
  const shape = shapeOf([3, 2], "channelsFirst");
  const numbers = numbersOf(shape, { mean: 0 });
  const zeros = () => new Float32Array(6);
  const gradients = { gradWeight: new Float32Array(2), gradBias: new Float32Array(2) };
  for (const at of [0, 3, 5]) {
    const y = zeros();
    y[at] = NaN;
    assert.equal(errorsOf(shape, numbers, { y, dx: zeros(), ...gradients }).y, Infinity);
  }
});

/** A run in which ours takes 1 ms and everybody else a multiple of it. */
function runOf(times: Readonly<Record<string, number>>, error: number): Measured {
  const cases = CASES.map((shape): Measurement => ({
    shape,
    rows: Object.entries(times).flatMap(([name, time]) =>
      [1, 2].flatMap((threads) =>
        (["forward", "both"] as const).map((work) => ({
          ...{ name, threads, work },
          ...{ median: time, fastest: time },
        }))
      )
    ),
    checks: [1, 2].map((threads) => ({
      ...{ name: OURS, threads },
      errors: { y: error / 2, dx: error, sums: 0 },
    })),
    absent: [],
  }));
  return { date: "2026-11-23", machine: "m", versions: ["v"], rounds: 1, cases, absent: [] };
}

Deno.test("verdicts() are met and missed by the figures of a run alone", () => {
  const metBy = (measured: Measured) => verdicts(measured).map(({ met }) => met);
  const [inTraining, primitives] = KINDS.map((kind) => `${ONNX}, ${kind}`);
  const limits = { [LIMIT]: 0.95, [NARROW]: 0.86 };
  const peers = { [inTraining]: 9, [primitives]: 6, PyTorch: 1.5, ...limits };
  const fast = runOf({ [OURS]: 1, ...peers }, 1e-6);
  const onNarrow = [false, true];
  const small = [true, false, true];
  assert.deepEqual(metBy(fast), [
    ...[true, true, null, true, null, true, true, ...onNarrow, true, ...small, null],
  ]);
  // The fastest of a library's rows counts.
  const others = { [primitives]: 4.9, [LIMIT]: 0.45, [inTraining]: 7.9 };
  const slower = runOf({ [OURS]: 1, ...peers, ...others }, 1.1e-6);
  assert.deepEqual(metBy(slower), [
    ...[true, false, null, true, null, false, false, ...onNarrow, false, false, false, false, null],
  ]);
  const quick = runOf({ [OURS]: 0.8, ...peers }, 0);
  assert.deepEqual(metBy(quick).slice(-4), [true, false, true, null]);
  assert.deepEqual(metBy(runOf({ [OURS]: 0.77, ...peers }, 0)).slice(-3), [true, true, null]);
  const alone = Array.from({ length: 9 }, () => null);
  assert.deepEqual(metBy(runOf({ [OURS]: 1 }, 0)), [...alone, true, null, null, null, null]);
  const [, both, limit] = verdicts(slower);
  assert.match(both.figure, /^4\.90 at worst, reached in 0 of 4$/);
  assert.match(limit.figure, /^10\.89 at worst, reached in 4 of 4$/);
  assert.equal(both.misses.length, 4);
});

/** What `deno fmt` makes of Markdown. */
async function formatted(text: string): Promise<string> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["fmt", "--quiet", "--ext=md", "-"],
    cwd: new URL("..", import.meta.url),
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(text));
  await writer.close();
  return new TextDecoder().decode((await child.output()).stdout).trimEnd();
}

Deno.test("the section and the chart show every batch and leave out what was not measured", async () => {
  const measured = runOf({ [OURS]: 1, PyTorch: 2.5 }, 1e-7);
  const text = peersSection({
    ...measured,
    absent: [{ name: LIMIT, threads: 0, missing: "there is no gcc" }],
  });
  assert.equal(text.match(/^### \[/gm)?.length, CASES.length);
  assert.match(text, /\| PyTorch +\| 2 +\| 2\.50 \(2\.50\) +\| [\d.,]+ +\| 2\.50 /);
  assert.match(text, /- C is not measured: there is no gcc\./);
  assert.doesNotMatch(text, /NaN|undefined|Infinity/);
  assert.equal(await formatted(text), text);
  for (const drawing of [peersChart(measured), timesChart(measured)]) {
    assert.match(drawing, /^<svg [^]*<\/svg>\n$/);
    assert.doesNotMatch(drawing, /NaN|undefined/);
  }
  const times = timesChart(measured).match(/>[\d.]+ ms[^<]*</g);
  assert.deepEqual(times, [1, 2].flatMap(() => [">1.00 ms<", ">2.50 ms (2.5)<"]));
});
