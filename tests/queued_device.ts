/**
 * A device that launches nothing before its batch ends, as a GPU does: the reference device behind a queue.
 *
 * An array has no contents until the task that makes it has run; a task that reads one before that fails. So the suites
 * show that the library launches in order, reads back in time, and frees nothing that is still to be read.
 *
 * What it may overwrite is NaN from then on, so that whoever reads it after all shows it.
 */

import { type Device, type ReferenceArray, referenceDevice, type Tensor } from "../mod.ts";
import {
  type ArrayInfo,
  momentsWire,
  sumsWire,
  weightedMomentsWire,
  type WireFormat,
} from "../lib/device_author.ts";

/** An array of a {@linkcode queuedDevice}. */
export interface QueuedArray {
  readonly device: "queued";
}

interface Slot extends ArrayInfo {
  contents?: ReferenceArray;
}

/** The same value with the arrays of another device. */
type Of<B, T> = T extends { readonly device: "queued" } ? B
  : T extends readonly unknown[] ? T
  : T extends object ? { readonly [K in keyof T]: Of<B, T[K]> }
  : T;

/** Makes a queued device, and counts its submits. */
export function queuedDevice(): { device: Device<QueuedArray>; submits: () => number } {
  const reference = referenceDevice();
  const slots = new WeakMap<QueuedArray, Slot>();
  const freed = new WeakSet<QueuedArray>();
  let submits = 0;

  const slotOf = (array: QueuedArray): Slot => {
    const slot = slots.get(array);
    if (slot) return slot;
    throw new TypeError(
      freed.has(array) ? "the array was freed" : "the array is another device's, or none",
    );
  };
  /** Checks now that every array in a pass is live; gives the pass with their contents when the task runs. */
  const later = <T>(pass: T): () => Of<ReferenceArray, T> => {
    const arrays = new Map<unknown, Slot>();
    const look = (value: unknown): void => {
      if (typeof value !== "object" || value === null) return;
      if ((value as Partial<QueuedArray>).device !== undefined) {
        arrays.set(value, slotOf(value as QueuedArray));
      } else Object.values(value).forEach(look);
    };
    look(pass);
    const resolve = (value: unknown): unknown => {
      if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
      const slot = arrays.get(value);
      if (slot?.contents) return slot.contents;
      if (slot) throw new Error("a task read an array before it was launched");
      return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, resolve(part)]));
    };
    return () => resolve(pass) as Of<ReferenceArray, T>;
  };

  /** Where an array may be overwritten, what it loses its values by. */
  const spoiler = (array: QueuedArray, overwrite = false): () => void => {
    if (!overwrite) return () => {};
    const slot = slotOf(array);
    const { length, dtype } = slot;
    return () => {
      if (slot.contents) reference.free(slot.contents);
      slot.contents = reference.upload(new Float32Array(length).fill(NaN), dtype);
    };
  };

  /** `launch` takes what computes, `afterwards` what only has to come after it. */
  function operations(
    launch: (task: () => void) => void,
    afterwards: (task: () => void) => void,
  ): Device<QueuedArray> {
    const promise = (info: ArrayInfo): [QueuedArray, Slot] => {
      const array: QueuedArray = Object.freeze({ device: "queued" });
      const slot: Slot = { ...info };
      slots.set(array, slot);
      return [array, slot];
    };
    const make = (info: ArrayInfo, compute: () => ReferenceArray): QueuedArray => {
      const [array, slot] = promise(info);
      launch(() => slot.contents = compute());
      return array;
    };
    /** Arrays that one task makes together, by their names; null where there is none. */
    const makeAll = <K extends string>(
      infos: Readonly<Record<K, ArrayInfo | null>>,
      compute: () => Readonly<Record<K, ReferenceArray | null>>,
    ): Record<K, QueuedArray | null> => {
      const made = Object.entries<ArrayInfo | null>(infos).map(([name, info]) =>
        [name as K, info && promise(info)] as const
      );
      launch(() => {
        const computed = compute();
        for (const [name, promised] of made) {
          if (promised) promised[1].contents = computed[name] ?? undefined;
        }
      });
      return Object.fromEntries(
        made.map(([name, promised]) => [name, promised && promised[0]]),
      ) as Record<K, QueuedArray | null>;
    };
    const read = <T>(array: QueuedArray, start: (contents: ReferenceArray) => Promise<T>) => {
      try {
        const contents = later(array);
        return new Promise<T>((resolve, reject) =>
          launch(() => start(contents()).then(resolve, reject))
        );
      } catch (error) {
        return Promise.reject(error);
      }
    };
    const vector = (length: number): ArrayInfo => ({ length, dtype: "float32" });
    const infoOf = (array: QueuedArray): ArrayInfo => {
      const { length, dtype } = slotOf(array); // Not its contents.
      return { length, dtype };
    };
    const wire = ({ length }: WireFormat, x: Tensor<QueuedArray>) => vector(length(x.shape[1]));

    const device: Device<QueuedArray> = {
      info: { ...reference.info, name: "queued reference" },
      upload: (values, dtype = "float32") => {
        const contents = reference.upload(values, dtype); // Arguments are read at once.
        return make({ length: values.length, dtype }, () => contents);
      },
      download: (array) => read(array, reference.download),
      free: (...arrays) => {
        const dead = new Set(arrays.map(slotOf));
        for (const array of arrays) {
          slots.delete(array);
          freed.add(array);
        }
        // What was launched before still reads them.
        afterwards(() => dead.forEach((slot) => slot.contents && reference.free(slot.contents)));
      },
      owns: (value): value is QueuedArray => slots.has(value as QueuedArray),
      describe: infoOf,
      moments: (pass) => {
        const ready = later(pass);
        const format = pass.weights ? weightedMomentsWire : momentsWire;
        return make(wire(format, pass.input), () => reference.moments(ready()));
      },
      normalize: (pass) => {
        const { input: { data }, overwrite } = pass;
        const [ready, spoil] = [later(pass), spoiler(data, overwrite)];
        return make(infoOf(data), () => {
          const made = reference.normalize(ready());
          spoil();
          return made;
        });
      },
      gradientSums: (pass) => {
        const ready = later(pass);
        return make(wire(sumsWire, pass.input), () => reference.gradientSums(ready()));
      },
      gradients: (pass) => {
        const { input, gradOutput, affine: { weight, bias }, residualFormat, overwrite } = pass;
        const [ready, spoil] = [later(pass), spoiler(gradOutput.data, overwrite)];
        const like = infoOf(input.data);
        const parameter = vector(input.shape[1]);
        const infos = {
          gradInput: like,
          gradWeight: weight && parameter,
          gradBias: bias && parameter,
          gradResidual: residualFormat ? like : null,
        };
        const { gradInput, ...others } = makeAll(infos, () => {
          const { gradInput, gradWeight, gradBias, gradResidual } = reference.gradients(ready());
          spoil();
          return { gradInput, gradWeight, gradBias, gradResidual };
        });
        return { gradInput: gradInput!, ...others };
      },
      tangents: (pass) => {
        const ready = later(pass);
        return make(infoOf(pass.input.data), () => reference.tangents!(ready()));
      },
      secondGradients: (pass) => {
        const { input, affine: { weight } } = pass;
        const ready = later(pass);
        const like = infoOf(input.data);
        const infos = {
          ...{ gradInput: like, gradGradOutput: like },
          gradWeight: weight && vector(input.shape[1]),
        };
        const made = makeAll(infos, () => ({ ...reference.secondGradients!(ready()) }));
        return { ...made, gradInput: made.gradInput!, gradGradOutput: made.gradGradOutput! };
      },
      updateRunningStats: (pass) => {
        const { running: { runningMean, runningVar } } = pass;
        const ready = later(pass);
        const infos = { runningMean: infoOf(runningMean), runningVar: infoOf(runningVar) };
        const made = makeAll(infos, () => ({ ...reference.updateRunningStats(ready()) }));
        return { runningMean: made.runningMean!, runningVar: made.runningVar! };
      },
      arrange: ({ parts }) => {
        const { input: { shape: [, ...sample], dtype } } = parts[0];
        const samples = parts.reduce((sum, { from, to }) => sum + to - from, 0);
        const ready = parts.map(later);
        const length = sample.reduce((product, extent) => product * extent, samples);
        return make({ length, dtype }, () => {
          return reference.arrange!({ parts: ready.map((part) => part()) });
        });
      },
      addScaled: (pass) => {
        const ready = later(pass);
        return make(infoOf(pass.x), () => reference.addScaled(ready()));
      },
      toWire: (array) => read(array, reference.toWire),
      fromWire: (format, wire) => {
        const contents = reference.fromWire(format, wire);
        return make(vector(wire.length), () => contents);
      },
      merge: (a, b) => {
        const ready = later({ a, b });
        return make(infoOf(a), () => {
          const arrays = ready();
          return reference.merge(arrays.a, arrays.b);
        });
      },
      batch: <R>(body: (device: Device<QueuedArray>) => R): R => {
        const queue: (() => void)[] = [];
        const enqueue = (task: () => void) => void queue.push(task);
        const inner = operations(enqueue, enqueue);
        const joined: Device<QueuedArray> = Object.freeze({
          ...inner,
          batch: <S>(nested: (device: Device<QueuedArray>) => S): S => nested(joined),
        });
        const result = body(joined);
        submits++;
        for (const task of queue) task();
        return result;
      },
    };
    return Object.freeze(device);
  }

  const launchAlone = (task: () => void) => {
    submits++;
    task();
  };
  const device = operations(launchAlone, (task) => task());
  return { device, submits: () => submits };
}
