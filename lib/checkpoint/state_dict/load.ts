/**
 * Named arrays from a checkpoint put into a model: everything is checked before anything is made.
 *
 * A version is one number for the whole dict, as safetensors keeps none; with null a counter may be missing and stays
 * the model's own, as in PyTorch. Two names of one node that differ are an error, where PyTorch lets the last one win.
 */

import type { Device } from "../../device.ts";
import { withNodes } from "../../tree.ts";
import { compose, region } from "../../ownership.ts";
import { contentsOf, type StateDictOptions } from "./entries.ts";
import { StateDictError } from "./error.ts";
import { compare, type Found, sameValue } from "./fit.ts";
import type { Part, Slot } from "./nodes.ts";
import { checkStored, entriesOf } from "../given.ts";
import type { StateDict, StoredArray } from "../stored_array.ts";
import { quote, shown, wrongKind, wrongValue } from "../../words.ts";

/** Options of {@linkcode fromStateDict}. */
export interface FromStateDictOptions extends StateDictOptions {
  /** Whether names that are missing or unexpected are an error; true by default. */
  readonly strict?: boolean;
  /**
   * Version of the batch norms in the state dict, which PyTorch keeps beside it (`_metadata`); null (by default) where
   * none was kept, as in safetensors files. With null and 1 a missing `num_batches_tracked` is no missing name.
   */
  readonly version?: null | 1 | 2;
}

/** A model with other arrays, and what its state dict lacked and had besides. */
export interface LoadedModel<T> {
  /** The model, frozen where it is new. */
  readonly model: T;
  /** Names that the model wants and the state dict lacks, in the model's order; none where `strict` is true. */
  readonly missing: readonly string[];
  /** Names of the state dict that the model has not, in the dict's order; none where `strict` is true. */
  readonly unexpected: readonly string[];
}

const ACTION = "load the state dict";

/**
 * Puts named arrays into a model, as PyTorch's `model.load_state_dict(dict)` does, but as a pure function that does all
 * of it or nothing: the given model keeps its arrays, and what could not be made is freed.
 *
 * Names, shapes and orders are those of `toStateDict`. Any dtype is converted, to float32 and then to that of the
 * model's own array; F32 keeps its bits, and F16 into float16 its values. A counter may be of any dtype as long as it
 * is an integer from 0 to 2^53 - 1, and of shape (1) as well, as in files of PyTorch 0.3.
 *
 * Nodes into which nothing is loaded are the same objects. Where some of a node's names are missing (`strict: false`)
 * it shares those arrays with the given one. A node that stands at several paths stays one; all its names are wanted,
 * and must say the same, where PyTorch takes the last.
 *
 * A lazy layer takes its channels from the first of its vectors that the dict has, and gets the vectors that its
 * options ask for: so declare such a node as `BatchNormLayer<A> | LazyBatchNormLayer`. Without any of them it stays
 * lazy, and a lone counter of it is unexpected.
 *
 * @param device where the model's arrays live, and the new ones shall
 * @param model a tree as of `toStateDict`; it is not changed. What is replaced must not stand in an object of a class,
 * which cannot be made again
 * @param dict a Map, such as `toStateDict` and `readSafetensors` give, or a plain record; it is not changed
 * @returns a frozen record: the model with its new arrays, and with `strict: false` the names that were left
 * @throws StateDictError with all names that are missing, unexpected, of another shape or with a value that does not
 * belong; TypeError or RangeError where the dict holds what is no stored array, for a version that is none, for a model
 * as in `toStateDict` (but a lazy layer may have no state) and the options of a lazy layer; all before anything is made
 *
 * @example
 * ```ts
 * import { initLayer, referenceDevice } from "@syncbn/syncbn";
 * import { fromStateDict } from "@syncbn/syncbn/checkpoint";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const fresh = { bn: initLayer(device, "batchNorm1d", 2, { bias: false }) };
 * const two = { dtype: "F32", shape: [2], data: Float32Array.of(3, 4) } as const;
 * const dict = { "bn.weight": two, "bn.old": two };
 * const { model, missing, unexpected } = fromStateDict(device, fresh, dict, { strict: false });
 * assert(device.owns(model.bn.state.weight));
 * assert.deepEqual(missing, ["bn.running_mean", "bn.running_var"]);
 * assert.deepEqual(unexpected, ["bn.old"]);
 * ```
 */
export function fromStateDict<A, T>(
  device: Device<A>,
  model: T,
  dict: StateDict | Readonly<Record<string, StoredArray>>,
  options: FromStateDictOptions = {},
): LoadedModel<T> {
  const { strict = true, version = null, prefix = "" } = options;
  if (version !== null && version !== 1 && version !== 2) {
    throw wrongValue(ACTION, "version must be 1, 2, or null where none was kept", version);
  }
  const all = givenDict(dict);
  const { nodes, entries } = contentsOf(device, model, ACTION, options);
  const given = new Map([...all].filter(([name]) => name.startsWith(prefix)));
  const { found, mismatches, ...names } = compare(entries, given, version);
  const wrong = strict ? names : { missing: [], unexpected: [] };
  if (wrong.missing.length + wrong.unexpected.length + mismatches.size > 0) {
    throw differenceError(wrong, mismatches, [...all.keys()]);
  }
  // A node that is left as it is must not be looked into either: an array of it may be a node elsewhere.
  const kept = [...nodes].map((node) => [node, node] as const);
  const load = (changed: readonly (readonly [old: object, node: object])[]) =>
    withNodes(model, new Map<object, object>([...kept, ...changed]), ACTION);
  // Once with nothing in them, since what cannot be made again is told before anything is made.
  load([...found.keys()].map(({ node }) => [node, {}]));
  const missing = Object.freeze(names.missing);
  const unexpected = Object.freeze(names.unexpected);
  return Object.freeze({ model: load(made(device, found)), missing, unexpected });
}

/** Makes the nodes into which something is loaded, in one submit; what they are made of is freed where that fails. */
function made<A>(
  device: Device<A>,
  found: ReadonlyMap<Part<A>, Found>,
): readonly (readonly [old: object, node: object])[] {
  if (found.size === 0) return [];
  return region(device, (scope) => {
    const arrays = compose(scope, (d) => {
      const upload = sharing(d);
      return [...found].map(([{ slots }, { vectors }]) =>
        slots.map((slot, i) => upload(slot, vectors[i]))
      );
    });
    return [...found].map(([{ node, rebuild }, { counter, channels }], i) =>
      [node, rebuild({ arrays: arrays[i], counter, channels })] as const
    );
  });
}

/** Uploads elements, once where nodes share an array and get the same ones; without elements the old array stays. */
function sharing<A>(
  device: Device<A>,
): (slot: Slot<A>, values: Float32Array | null) => A | Float32Array {
  const uploads = new Map<A, { readonly values: Float32Array; readonly made: A }[]>();
  return ({ array, host, dtype }, values) => {
    if (host !== null) return values === null ? host : values.slice();
    if (values === null) return array as A;
    if (array === null) return device.upload(values, dtype);
    const others = uploads.get(array) ?? [];
    const same = others.find((other) => sameValue(other.values, values));
    if (same !== undefined) return same.made;
    const made = device.upload(values, dtype);
    uploads.set(array, [...others, { values, made }]);
    return made;
  };
}

const MOST = 50;

function differenceError(
  { missing, unexpected }: Pick<StateDictError, "missing" | "unexpected">,
  mismatches: ReadonlyMap<string, string>,
  given: readonly string[],
): StateDictError {
  const listed = (texts: readonly string[]) =>
    texts.slice(0, MOST).join(", ") +
    (texts.length > MOST ? ` and ${texts.length - MOST} more` : "");
  const quoted = (names: readonly string[]) => listed(names.map(quote));
  const differences = [
    ...missing.length > 0 ? [`lacks ${quoted(missing)}`] : [],
    ...unexpected.length > 0 ? [`has ${quoted(unexpected)} besides`] : [],
    ...mismatches.size > 0 ? [`has ${listed([...mismatches.values()])}`] : [],
  ];
  return new StateDictError(
    `Cannot ${ACTION} as its entries must be those of the model: ` +
      `current dict ${differences.join("; ")}${prefixHint(missing, given)}`,
    { missing, unexpected, mismatched: [...mismatches.keys()] },
  );
}

/** Says by which prefix all names that are missing differ from some that are given. */
function prefixHint(missing: readonly string[], given: readonly string[]): string {
  const names = new Set(given);
  const [own] = missing;
  for (const name of own === undefined ? [] : given) {
    const more = name.endsWith(own) ? name.slice(0, -own.length) : "";
    if (more !== "" && missing.every((other) => names.has(more + other))) {
      return `; its names begin with ${quote(more)} besides: pass { prefix: ${quote(more)} }`;
    }
    const less = own.endsWith(name) ? own.slice(0, -name.length) : "";
    const lacks = (other: string) => other.startsWith(less) && names.has(other.slice(less.length));
    if (less !== "" && missing.every(lacks)) {
      return `; its names lack ${quote(less)}, with which the model's begin: pass { rename: ` +
        `(name) => name.slice(${less.length}) }, or that part of the model`;
    }
  }
  return "";
}

function givenDict(dict: unknown): StateDict {
  if ((dict as { readonly tensors?: unknown } | null)?.tensors instanceof Map) {
    throw new TypeError(
      `Cannot ${ACTION} as it must be a Map or a plain record of arrays: ` +
        `current value is what readSafetensors returns, so pass its tensors`,
    );
  }
  const given = new Map<string, StoredArray>();
  for (const [name, array] of entriesOf(dict, "it", ACTION)) {
    if (typeof name !== "string") throw wrongKind(ACTION, "every name must be a string", name);
    checkStored(array, `entry ${shown(name)}`, ACTION);
    given.set(name, array);
  }
  return given;
}
