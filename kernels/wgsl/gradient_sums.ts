/**
 * The two sums that gradients need, slice by slice: sum of dy, and sum of dy * (x - mean).
 *
 * An array of gradient sums has, per channel, the statistics of the pass as two vec2f (the mean and its low part; m2 and
 * count), and then one vec2f (sumDy, sumDyXmu) per slice. So the gradients that follow need no other statistics.
 */

import type { DType } from "../../lib/tensor.ts";
import { type Folded, recordAt, slicesOf, treeReduce, writeSlice } from "./fold.ts";
import { type Kernel, tensor, written } from "./kernel.ts";
import {
  behindGate,
  type Gate,
  gateParameters,
  maskReader,
  maskStorage,
  readsOutput,
} from "./mask.ts";
import { type Source, statistics, statisticsStorage } from "./statistics.ts";
import {
  aheadOf,
  loop,
  type Named,
  ofChannels,
  storedAs,
  type Tile,
  tiledKernel,
  toChannels,
  valuesOf,
} from "./tiles.ts";
import { type Weighing, weightsReader, weightsStorage } from "./weights.ts";

/** Gradient sums; `product` is of dy * (x - mean). */
export const gradientSums: Folded = Object.freeze<Folded>({
  type: "Sums",
  fields: { dy: "Statistic", product: "Statistic" },
  header: 2,
  merge: () => `
fn mergeSums(a: Sums, b: Sums) -> Sums {
  return Sums(a.dy + b.dy, a.product + b.product);
}
`,
});

/** What the gradients of a position are made of, by name and WGSL. */
export function gradientLoads(given: Gate): (at: string) => Named {
  return (at) => ({
    dy: valuesOf("gradOutput", at),
    ...(readsOutput(given) && { output: valuesOf("output", at) }),
    ...(given.gate === "mask" && { isOpen: `isOpen(place.channel, ${at})` }),
  });
}

/**
 * Gradient sums of every slice of the box; its first slice writes the statistics: x, gradOutput, output or mask?, weights?, statistics
 * -> sums. Weights of examples scale dy, and leave it out where they are 0.
 */
export function gradientSumsKernel(
  options: Tile & Gate & Weighing & { readonly dtype: DType; readonly source: Source },
): Kernel {
  const { dtype, pack, source, gate, weights } = options;
  const stored = storedAs(dtype, pack);
  const weighed = (names: Named) =>
    weights === "none"
      ? behindGate(options, names, names.dy!)
      : `select(Values(0.0), ${names.weight} * ${
        behindGate(options, names, names.dy!)
      }, ${names.weight} > Values(0.0))`;
  const add = (names: Named) =>
    `{
      let dy = ${weighed(names)};
      // Left out rather than multiplied: x may be infinite where no gradient flows.
      few += select(dy * (${names.x} - stats.mean), Values(0.0), dy == Values(0.0));
      through += dy;
    }`;
  // A few terms at a time: rounding grows with the length of a chain of additions.
  const summed = (loads: readonly Named[]) =>
    `var few = Values(0.0);
    var through = Values(0.0);
    ${loads.map(add).join("\n    ")}
    total = mergeSums(total, Sums(across(through), across(few)));`;
  return tiledKernel({
    name: "gradientSums",
    options,
    storage: {
      x: tensor(stored),
      gradOutput: tensor(stored),
      output: readsOutput(options) ? tensor(stored) : null,
      mask: gate === "mask" ? maskStorage("read") : null,
      weights: weightsStorage(options, options),
      ...statisticsStorage(source),
      sums: written(slicesOf(gradientSums)),
    },
    parameters: gateParameters(options),
    declared: `${statistics(source, options)}${treeReduce(options, gradientSums)}${
      maskReader(options, options)
    }${weightsReader(options, options)}`,
    body: `let stats = statistics(place, thread);
  var total = Sums();
  ${
      loop(
        aheadOf(options.pack),
        (at) => ({
          ...gradientLoads(options)(at),
          x: valuesOf("x", at),
          ...(weights !== "none" && { weight: `weightsAt(${at})` }),
        }),
        (_, names) => summed([names]),
        summed,
      )
    }
  var whole = reduceSums(thread, p.span, total);
  if (place.row > 0u || !exists(place)) { return; }
  let c = place.channel;
  let slice = p.firstSlice + place.slice;
  // The mean is stats.mean and its low part.
  whole.product -= stats.meanLow * whole.dy;
  ${writeSlice(options, gradientSums, "sums", "slice")}
  if (slice > 0u) { return; }
  ${
      toChannels(options, (channel, i) => {
        const at = recordAt(gradientSums, "sums", channel);
        return `sums[${at}] = vec2f(stats.mean${i}, stats.meanLow${i});
    sums[${at} + 1u] = vec2f(stats.m2${i}, stats.count);`;
      })
    }`,
  });
}

/** WGSL: `stated`, the statistics that stand before local sums, of the lane whose first channel is `c`. */
export function stated(tile: Tile): string {
  const of = (element: number, component: string) =>
    ofChannels(
      tile,
      (channel) =>
        `local[${recordAt(gradientSums, "local", `(${channel})`)} + ${element}u].${component}`,
    );
  return `
fn stated(c: u32) -> Moments {
  let count = local[${recordAt(gradientSums, "local", "c")} + 1u].y;
  return Moments(${of(0, "x")}, ${of(0, "y")}, ${of(1, "x")}, count);
}
`;
}
