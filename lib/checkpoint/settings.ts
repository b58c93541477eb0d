/**
 * What a state dict has no names for: a model's settings, as a text for the metadata of a file.
 *
 * PyTorch's modules have their settings in the program, and so has ours; but a file that is loaded years later should go on by
 * the same rules. A layer's group stays out: where a model runs is the program's matter.
 */

import { checkConfiguration } from "../check_state.ts";
import { type AnyLayer, checkLayer, type LayerSettings } from "../layers/check_layer.ts";
import { checkChoice, layersOf, replaceLayers } from "../layers/replace.ts";
import { checkMomentum } from "../schedule.ts";
import type { BatchNormState } from "../state.ts";
import { listed, quote, refused, shown, wrongKind } from "../words.ts";

/** The name that the settings have in a file's metadata. */
const NAME = "syncbn.layers";
const OF_LAYER = ["activation", "ghost", "renorm", "frozen"] as const;
const OF_STATE = ["eps", "momentum", "runningVariance"] as const;

type Own = Pick<LayerSettings, typeof OF_LAYER[number]>;
type OfState = Partial<Pick<BatchNormState<unknown>, typeof OF_STATE[number]>>;
interface Settings extends Own, OfState, Pick<LayerSettings, "kind"> {}

/**
 * Makes a text of the settings of a model's layers: eps, momentum and its rule, which running variance, activation, ghost
 * batches, renormalization, what is frozen.
 *
 * @param model a tree with layers as of `initLayer` in it
 * @returns metadata for `writeSafetensors`, of one name
 * @throws TypeError or RangeError for what is no layer, by its path, or no layer at all
 *
 * @example
 * ```ts
 * import { initLayer, referenceDevice } from "@syncbn/syncbn";
 * import { fromMetadata, toMetadata } from "@syncbn/syncbn/checkpoint";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const momentum = { rule: "zeroDebiased", value: 0.1 } as const;
 * const model = { norm: initLayer(device, "batchNorm1d", 2, { momentum, runningVariance: "biased" }) };
 * const plain = { norm: initLayer(device, "batchNorm1d", 2) };
 * assert.deepEqual(fromMetadata(plain, toMetadata(model)).norm.state.momentum, momentum);
 * ```
 */
export function toMetadata(model: unknown): Readonly<Record<string, string>> {
  const layers = layersOf(model, "save the settings");
  const all = [...layers].flatMap(([layer, paths]) =>
    paths.map((path) => [path, settingsOf(layer)])
  );
  return Object.freeze({ [NAME]: JSON.stringify(Object.fromEntries(all)) });
}

/**
 * Gives the layers of a model the settings that {@linkcode toMetadata} made a text of.
 *
 * @param model a tree with layers at the same paths, and of the same kinds; it is not changed
 * @param metadata that of `readSafetensors`, or a record
 * @returns a tree of the same type, frozen where it is new, that shares all vectors with the given one
 * @throws TypeError or RangeError where there are no settings in it, for paths that are not the model's layers, and for
 * settings that are none, by their path
 */
export function fromMetadata<T>(
  model: T,
  metadata: ReadonlyMap<string, string> | Readonly<Record<string, string>>,
): T {
  const action = "load the settings";
  const text = metadata instanceof Map ? metadata.get(NAME) : Object(metadata)[NAME];
  if (typeof text !== "string") {
    throw wrongKind(action, `the metadata must have ${quote(NAME)}, as of toMetadata`, text);
  }
  const all = parsed(text, action);
  const paths = new Set([...layersOf(model, action).values()].flat());
  const other = [...Object.keys(all).filter((path) => !paths.has(path))];
  const missing = [...paths].filter((path) => !Object.hasOwn(all, path));
  if (other.length + missing.length > 0) {
    const differ = `values are ${listed(missing.map(quote))}, which have none, and ` +
      `${listed(other.map(quote))}, which are no layers`;
    throw refused(action, "there must be settings of each layer", differ);
  }
  return replaceLayers(model, checkChoice({}, action), action, (layer, path, here) => {
    const settings = all[path] as Settings;
    checkSettings(settings, layer, here);
    const { eps, momentum, runningVariance } = settings;
    const own = { ...layer };
    for (const name of OF_LAYER) delete (own as { -readonly [K in keyof Own]?: unknown })[name];
    const { activation, ghost, renorm, frozen } = settings;
    const changed = {
      ...own,
      ...given({ activation, ghost, renorm, frozen }),
      ...(layer.state === null
        ? { lazy: Object.freeze({ ...layer.lazy, ...given({ eps, momentum, runningVariance }) }) }
        : { state: stateOf(layer.state, settings, here) }),
    } as AnyLayer<unknown>;
    checkLayer(changed, here);
    return Object.freeze(changed);
  });
}

function settingsOf({ kind, ...layer }: AnyLayer<unknown>): Settings {
  const { activation, ghost, renorm, frozen } = layer;
  const { eps, momentum, runningVariance } = layer.state ?? layer.lazy;
  return { kind, ...given({ activation, ghost, renorm, frozen, eps, momentum, runningVariance }) };
}

/** The fields that there are. */
function given<R extends object>(record: R): R {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined)) as R;
}

function stateOf<A>(
  { runningVariance: _, ...state }: BatchNormState<A>,
  { eps = state.eps, momentum = state.momentum, runningVariance }: Settings,
  here: string,
): BatchNormState<A> {
  const next = { ...state, eps, momentum, ...given({ runningVariance }) };
  checkMomentum(momentum, here);
  checkConfiguration(next, here);
  return Object.freeze(next);
}

const KNOWN: readonly string[] = ["kind", ...OF_LAYER, ...OF_STATE];

function checkSettings(settings: Settings, { kind }: AnyLayer<unknown>, here: string): void {
  if (typeof settings !== "object" || settings === null) {
    throw wrongKind(here, "its settings must be a record", settings);
  }
  const other = Object.keys(settings).find((name) => !KNOWN.includes(name));
  if (other !== undefined) {
    throw wrongKind(here, `settings may be ${KNOWN.join(", ")}`, other, "name");
  }
  if (settings.kind === kind) return;
  const came = `values are ${shown(settings.kind)} and ${shown(kind)}`;
  throw refused(here, "the settings must be those of a layer of the same kind", came);
}

function parsed(text: string, action: string): Readonly<Record<string, unknown>> {
  const wanted = "the settings must be a record in JSON, by the paths of layers";
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw wrongKind(action, wanted, text);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Readonly<Record<string, unknown>>;
  }
  throw wrongKind(action, wanted, value);
}
