/**
 * Checkpoints: whole models as named arrays and as files, in PyTorch's names and other frameworks' conventions. Bytes in,
 * bytes out: nothing is opened, no permission is needed.
 *
 * {@linkcode toStateDict} and {@linkcode fromStateDict} take models of the main entry point to named arrays and back,
 * {@linkcode writeSafetensors} and {@linkcode readSafetensors} those to the bytes of a file and back. Single batch norms
 * come from Keras and Flax by {@linkcode fromKeras} and {@linkcode fromFlax}, and go there by {@linkcode toKeras} and
 * {@linkcode toFlax}.
 *
 * @example A model to a file and back
 * ```ts
 * import { initLayer, referenceDevice } from "@syncbn/syncbn";
 * import { fromStateDict, readSafetensors, toStateDict, writeSafetensors } from "@syncbn/syncbn/checkpoint";
 *
 * const device = referenceDevice();
 * const model = { blocks: [initLayer(device, "batchNorm2d", 64)] };
 * const bytes = writeSafetensors(await toStateDict(device, model)); // Deno.writeFile("model.safetensors", bytes)
 * const { model: loaded } = fromStateDict(device, model, readSafetensors(bytes).tensors);
 * console.assert(device.owns(loaded.blocks[0].state.weight));
 * ```
 *
 * @module
 */

export { toFloat32 } from "./checkpoint/numbers.ts";
export type {
  OpaqueDType,
  StateDict,
  Stored,
  StoredArray,
  StoredDType,
} from "./checkpoint/stored_array.ts";
export type { StateDictOptions } from "./checkpoint/state_dict/entries.ts";
export { toStateDict } from "./checkpoint/state_dict/save.ts";
export * from "./checkpoint/state_dict/load.ts";
export { type StateDictDifferences, StateDictError } from "./checkpoint/state_dict/error.ts";
export { fromMetadata, toMetadata } from "./checkpoint/settings.ts";
export { readSafetensors, type Safetensors, writeSafetensors } from "./checkpoint/safetensors.ts";
export { SafetensorsError, type SafetensorsErrorCode } from "./checkpoint/safetensors/error.ts";
export type {
  ExportBatchNormOptions,
  ImportBatchNormOptions,
  ImportedBatchNorm,
} from "./checkpoint/frameworks/decay.ts";
export * from "./checkpoint/frameworks/keras.ts";
export * from "./checkpoint/frameworks/flax.ts";
