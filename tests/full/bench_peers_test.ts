/** The C program that bench:peers compares with. */

import assert from "node:assert/strict";
import { type BatchShape, numbersOf } from "../../bench/batches.ts";
import { errorsOf } from "../../bench/errors.ts";
import { limitSubject } from "../../bench/peers/limit.ts";

import { fullTests } from "../tier.ts";

const test = fullTests("bench");

/** Units of the last place of values about 4, and of sums in units of their root: what float32 results may be off by. */
const ROUNDING = 2e-6;

const shapeOf = (shape: readonly number[], format: BatchShape["format"]): BatchShape => ({
  shape,
  format,
});

/** Rows of whole vectors, of less than one, of one and a rest; channels likewise; fewer samples than threads. */
const SHAPES = [[5, 3, 7, 9], [3, 16, 4, 4], [2, 17, 5, 13], [1, 40, 3, 5], [600, 130], [
  70,
  64,
  5,
  5,
]];

async function hasGcc(): Promise<boolean> {
  try {
    return (await new Deno.Command("gcc", { args: ["--version"] }).output()).success;
  } catch {
    return false;
  }
}

for (const narrow of [false, true]) {
  test(
    `the C program computes what float64 does, in both formats, with any number of threads${
      narrow ? ", with vectors of 128 bits" : ""
    }`,
    async () => {
      const folder = new URL(`file://${await Deno.makeTempDir()}/`);
      try {
        const limit = await limitSubject({ folder, threads: [1, 2, 3], narrow });
        assert("open" in limit, "missing" in limit ? limit.missing : "");
        await using subject = limit;
        for (const extents of SHAPES) {
          for (const format of ["channelsFirst", "channelsLast"] as const) {
            const shape = shapeOf(extents, format);
            const numbers = numbersOf(shape, { mean: 100 });
            await using opened = await subject.open(shape, numbers);
            const checked = opened.contenders.filter(({ results }) => results);
            assert(checked.length >= 3);
            for (const { name, threads, results, time } of checked) {
              const { y, dx, sums } = errorsOf(shape, numbers, await results!());
              const worst = Math.max(y, dx, sums);
              assert(
                worst < ROUNDING,
                `${name} ${threads} [${extents}] ${format}: off by ${y}, ${dx}, ${sums}`,
              );
              assert(await time("both", 3) > 0);
            }
          }
        }
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
    { ignore: !await hasGcc() },
  );
}
