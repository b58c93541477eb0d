/**
 * Second order: how y moves along a direction u of x, and the gradient z of the input of a backward pass of v, which is dy.
 *
 * y = a*u + b*xhat + c, then + r, or 0 where the output was not positive; z = a'*u + b'*v + c'*xhat + d', where v counts as 0
 * there; weights of examples scale all of z but b'*v, or where there is no z all of y but a*u and r. Kernels over channels write
 * the coefficients, one walk reads them: a record of three vec4f per channel, (mean, s), (a, b, c) and (a', b', c', d'), as an
 * array of moments in so many slices has it.
 */

import type { DType } from "../../lib/tensor.ts";
import { gather, recordAt, slicesOf, treeReduce } from "./fold.ts";
import { gradientSums } from "./gradient_sums.ts";
import { type Kernel, type Storage, tensor, vector, written } from "./kernel.ts";
import {
  behindGate,
  type Gate,
  gateParameters,
  maskReader,
  maskStorage,
  readsOutput,
} from "./mask.ts";
import { INVSTD, moments } from "./moments_algebra.ts";
import { type Source, statistics, statisticsStorage } from "./statistics.ts";
import {
  aheadOf,
  loop,
  type Named,
  ofChannels,
  putValues,
  storedAs,
  type Tile,
  tiledKernel,
  valuesOf,
} from "./tiles.ts";
import { type Weighing, weightsReader, weightsStorage } from "./weights.ts";

/** Elements of a channel's record of coefficients, each a vec4f. */
export const COEFFICIENTS = 3;

/** Coefficients, as an array of as many slices of moments. */
const coefficients: Storage = slicesOf(moments);

/** Where the numbers of a kernel over channels come from. */
export interface SourceOptions extends Tile {
  readonly source: Source;
}

/** WGSL: the statistics of a channel and gradient sums by name; `share` is 1/count, or 0. */
function given(options: SourceOptions, sums: readonly string[]) {
  const declared = [
    statistics(options.source, options),
    INVSTD,
    ...(sums.length > 0 ? [treeReduce(options, gradientSums)] : []),
    ...sums.map((name) => gather(options, gradientSums, name)),
  ].join("");
  const body = `let stats = statistics(place, thread);
  ${sums.map((name) => `let of_${name} = gather_${name}(place, thread);`).join("\n  ")}
  if (place.row > 0u || !exists(place)) { return; }
  let c = place.channel;
  let s = invstd(stats.m2, stats.count);
  let share = select(1.0 / stats.count, 0.0, stats.count == 0.0);`;
  return { declared, body };
}

const sumsStorage = (names: readonly string[]) =>
  Object.fromEntries(names.map((name) => [name, slicesOf(gradientSums)]));

const own = (name: string) => `${name}[p.${name}At + c]`;

const put = (k: number, values: string) =>
  `coefs[${recordAt(moments, "coefs", "c")} + ${k}u] = vec4f(${values});`;

/**
 * Coefficients of a direction: statistics, along?, weight, ofWeight, ofBias, ofMean?, ofVariance? -> coefs. `own` is 1 where
 * the first one is weight*s, else 0, and `plain` is added to it.
 */
export function directionKernel(options: SourceOptions): Kernel {
  const training = options.source === "batch";
  const { declared, body } = given(options, training ? ["along"] : []);
  return tiledKernel({
    name: "directionCoefficients",
    options,
    storage: {
      ...statisticsStorage(options.source),
      ...sumsStorage(training ? ["along"] : []),
      ...{ weight: vector(), ofWeight: vector(), ofBias: vector() },
      ...(training && { ofMean: vector(), ofVariance: vector() }),
      coefs: written(coefficients),
    },
    parameters: { eps: "f32", own: "f32", plain: "f32" },
    declared,
    body: `${body}
  let scale = s * ${own("weight")};
  var perXhat = ${own("ofWeight")};
  var offset = ${own("ofBias")};
  ${
      training
        ? `perXhat -= scale * (s * (of_along.product * share));
  // Where s is 0, so is every deviation.
  perXhat += select(2.0 * share * ${own("ofVariance")} / s, 0.0, s == 0.0);
  offset += share * ${own("ofMean")} - scale * (of_along.dy * share);`
        : ""
    }
  offset -= perXhat * (s * stats.meanLow);
  ${put(0, "stats.mean, s, 0.0, 0.0")}
  ${put(1, "p.own * scale + p.plain, perXhat, offset, 0.0")}`,
  });
}

/**
 * Coefficients of the gradient of the input of a backward pass, from sums of the group: statistics, gradient?, along?,
 * products?, weighted?, weight?, ofWeight -> coefs. (E, F) are (S1, S2) times ofWeight where `weighted` are those of `gradient`,
 * which `ownWeighted`, 1 or 0, tells.
 */
export function secondKernel(options: SourceOptions): Kernel {
  const training = options.source === "batch";
  const sums = training ? ["gradient", "along", "products", "weighted"] : [];
  const { declared, body } = given(options, sums);
  return tiledKernel({
    name: "secondCoefficients",
    options,
    storage: {
      ...statisticsStorage(options.source),
      ...sumsStorage(sums),
      weight: training ? vector() : null,
      ofWeight: vector(),
      coefs: written(coefficients),
    },
    parameters: { eps: "f32", ownWeighted: "u32" },
    declared,
    body: `${body}
  let q = ${own("ofWeight")};
  ${
      training
        ? `let level = of_gradient.dy * share;
  let slope = s * (of_gradient.product * share);
  let alongLevel = of_along.dy * share;
  let alongSlope = s * (of_along.product * share);
  let factor = select(1.0, q, p.ownWeighted == 1u);
  let scale = s * ${own("weight")};
  let inner = (alongLevel * level - of_products.product * share) + 3.0 * slope * alongSlope;
  let perXhat = s * (scale * inner - factor * (s * (of_weighted.product * share)));
  let across = s * (scale * (alongSlope * level + slope * alongLevel) - factor * (of_weighted.dy * share));
  let offset = across - perXhat * (s * stats.meanLow);
  ${put(2, "-s * scale * slope, s * (q - scale * alongSlope), perXhat, offset")}`
        : put(2, "0.0, s * q, 0.0, 0.0")
    }`,
  });
}

/** s * (D - A*S1/N - B*s^2*S2/N), or s*D in evaluation: statistics, gradient?, along?, products -> gradWeight. */
export function secondGradWeightKernel(options: SourceOptions): Kernel {
  const training = options.source === "batch";
  const sums = training ? ["gradient", "along", "products"] : ["products"];
  const { declared, body } = given(options, sums);
  return tiledKernel({
    name: "secondGradWeight",
    options,
    storage: {
      ...statisticsStorage(options.source),
      ...sumsStorage(sums),
      gradWeight: written(vector()),
    },
    parameters: { eps: "f32" },
    declared,
    body: `${body}
  ${
      training
        ? `let level = of_along.dy * (of_gradient.dy * share);
  let slope = (s * of_along.product) * (s * (of_gradient.product * share));
  ${own("gradWeight")} = s * (of_products.product - level - slope);`
        : `${own("gradWeight")} = s * of_products.product;`
    }`,
  });
}

/** What a walk is made of. */
export interface FollowOptions extends Tile, Gate, Weighing {
  readonly dtype: DType;
  /** Whether there are v and z; whether there is an r. */
  readonly second: boolean;
  readonly added: boolean;
}

/** The walk: x, u, v?, output or mask?, r?, weights?, coefs -> y, z?. */
export function followKernel(options: FollowOptions): Kernel {
  const { dtype, pack, gate, second, added, weights } = options;
  const stored = storedAs(dtype, pack);
  const record = (channel: string, k: number) =>
    `coefs[${recordAt(moments, "coefs", `(${channel})`)} + ${k}u]`;
  const coefficient = (name: string, k: number, component: string) =>
    `let ${name} = ${ofChannels(options, (channel) => `${record(channel, k)}.${component}`)};`;
  const behind = (names: Named) =>
    weighed(names, `zU * ${names.u} + (zXhat * xhat + zOffset)`, true);
  const weighed = (names: Named, value: string, isHere: boolean) =>
    weights === "none" || !isHere
      ? `(${value})`
      : `select(Values(0.0), ${names.weight} * (${value}), ${names.weight} > Values(0.0))`;
  return tiledKernel({
    name: "follow",
    options,
    storage: {
      x: tensor(stored),
      u: tensor(stored),
      v: second ? tensor(stored) : null,
      output: readsOutput(options) ? tensor(stored) : null,
      mask: gate === "mask" ? maskStorage("read") : null,
      r: added ? tensor(stored) : null,
      weights: weightsStorage(options, options),
      coefs: coefficients,
      y: written(tensor(stored)),
      z: second ? written(tensor(stored)) : null,
    },
    parameters: gateParameters(options),
    declared: `${maskReader(options, options)}${weightsReader(options, options)}`,
    body: `if (!exists(place)) { return; }
  let c = place.channel;
  ${coefficient("mean", 0, "x")}
  ${coefficient("s", 0, "y")}
  ${
      ["x", "y", "z"].map((part, i) => coefficient(["yU", "yXhat", "yOffset"][i], 1, part)).join(
        "\n  ",
      )
    }
  ${
      second
        ? ["x", "y", "z", "w"].map((part, i) =>
          coefficient(["zU", "zV", "zXhat", "zOffset"][i], 2, part)
        ).join("\n  ")
        : ""
    }
  ${
      loop(
        aheadOf(pack),
        (at) => ({
          x: valuesOf("x", at),
          u: valuesOf("u", at),
          ...(second && { v: valuesOf("v", at) }),
          ...(added && { r: valuesOf("r", at) }),
          ...(readsOutput(options) && { output: valuesOf("output", at) }),
          ...(gate === "mask" && { isOpen: `isOpen(place.channel, ${at})` }),
          ...(weights !== "none" && { weight: `weightsAt(${at})` }),
        }),
        (at, names) =>
          `let xhat = (${names.x} - mean) * s;
    let moved = yU * ${names.u} + ${weighed(names, "yXhat * xhat + yOffset", !second)}${
            added ? ` + ${names.r}` : ""
          };
    ${putValues("y", at, `${stored}(${behindGate(options, names, "moved")})`)}
    ${
            second
              ? `let through = ${behindGate(options, names, names.v!)};
    ${putValues("z", at, `${stored}(zV * through + ${behind(names)})`)}`
              : ""
          }`,
      )
    }`,
  });
}
