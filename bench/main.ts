/** `deno task bench`: runs `deno bench` over the rows and prints time, effective bandwidth and ratio side by side. */

import { allRows } from "./rows.ts";

/** What `deno bench --json` says of one row, in nanoseconds. */
interface Timing {
  readonly group: string;
  readonly name: string;
  readonly results: readonly {
    readonly ok?: { readonly min: number; readonly avg: number; readonly p75: number };
  }[];
}

interface Report {
  readonly runtime: string;
  readonly cpu: string;
  readonly benches: readonly Timing[];
}

async function measure(): Promise<Report> {
  const benchmarks = new URL("batch_norm_bench.ts", import.meta.url).href;
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["bench", "--json", benchmarks],
    stderr: "inherit",
  }).output();
  if (code !== 0) throw new Error(`Cannot print the benchmark as it failed: exit code is ${code}`);
  return JSON.parse(new TextDecoder().decode(stdout));
}

function print({ runtime, cpu, benches }: Report): void {
  const bytes = new Map(allRows().map(({ group, name, bytes }) => [`${group}/${name}`, bytes]));
  console.log(`${runtime}, ${cpu}`);
  console.log(
    "ms: mean (fastest); GB/s: 2 (inference), 3 (forward), 5 (backward) passes over the tensor per mean\n",
  );
  const nameWidth = Math.max(...benches.map(({ name }) => name.length));
  let group = "";
  let baseline = NaN;
  for (const bench of benches) {
    const timing = bench.results[0].ok;
    if (timing === undefined) throw new Error(`Cannot print ${bench.name} as its run failed`);
    const { avg, min } = timing;
    if (bench.group !== group) {
      group = bench.group;
      baseline = avg;
      console.log(group);
    }
    const moved = bytes.get(`${group}/${bench.name}`) ?? NaN;
    console.log(
      [
        `  ${bench.name.padEnd(nameWidth)}`,
        `${(avg / 1e6).toFixed(3).padStart(9)} ms`,
        `(${(min / 1e6).toFixed(3)})`.padStart(10),
        `${(moved / avg).toFixed(2).padStart(7)} GB/s`,
        avg === baseline ? "" : `${(avg / baseline).toFixed(2).padStart(7)} x the first`,
      ].join(" ").trimEnd(),
    );
  }
}

print(await measure());
