/** A GPUDevice that counts what is asked of it, and may report failures that it did not have. */

/** What was asked of a GPUDevice so far. */
export interface Counts {
  readonly submits: number;
  readonly dispatches: number;
  readonly copies: number;
  readonly maps: number;
  readonly writes: number;
  readonly buffers: number;
  readonly destroyed: number;
  readonly bindGroups: number;
  readonly pipelines: number;
}

/** A GPUDevice under observation. */
export interface RecordingGpu {
  readonly gpuDevice: GPUDevice;
  /** Runs a body and tells what it asked for. */
  readonly during: <T>(body: () => T) => { readonly counts: Counts; readonly result: T };
  /** What was asked for in all. */
  readonly counts: () => Counts;
  /** Bytes of the largest part of a buffer that was bound. */
  readonly largestBinding: () => number;
  /** The next error scope with this filter that is popped reports an error, some time after it was popped. */
  readonly report: (filter: GPUErrorFilter, message: string, afterMs?: number) => void;
}

type Method = (...args: unknown[]) => unknown;

/**
 * Puts a GPUDevice under observation.
 *
 * The real objects reject receivers that are not theirs, so that only those which methods are called on (device, queue,
 * encoder, pass) are proxies; whatever is passed as an argument stays real.
 */
export function recordGpu(real: GPUDevice): RecordingGpu {
  const counts: Record<keyof Counts, number> = {
    submits: 0,
    dispatches: 0,
    copies: 0,
    maps: 0,
    writes: 0,
    buffers: 0,
    destroyed: 0,
    bindGroups: 0,
    pipelines: 0,
  };
  const reports = new Map<GPUErrorFilter, { message: string; afterMs: number }>();
  let largestBinding = 0;
  const scopes: GPUErrorFilter[] = [];

  const watch = <T extends object>(
    target: T,
    methods: Record<string, (call: Method) => Method>,
  ): T =>
    new Proxy(target, {
      get(_target, name) {
        const value = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        const call: Method = (...args) => value.apply(target, args);
        return Object.hasOwn(methods, name) ? methods[String(name)](call) : call;
      },
    });
  const counting = (what: keyof Counts) => (call: Method): Method => (...args) => {
    counts[what]++;
    return call(...args);
  };
  const queue = watch(real.queue, {
    // An empty one asks for nothing: it wakes an implementation that is slow to look.
    submit: (call) => (commands) => {
      if ((commands as readonly unknown[]).length > 0) counts.submits++;
      return call(commands);
    },
    writeBuffer: counting("writes"),
  });
  const pass = (target: GPUComputePassEncoder) =>
    watch(target, { dispatchWorkgroups: counting("dispatches") });
  const encoder = (target: GPUCommandEncoder) =>
    watch(target, {
      beginComputePass: (call) => (...args) => pass(call(...args) as GPUComputePassEncoder),
      copyBufferToBuffer: counting("copies"),
    });
  const buffer = (target: GPUBuffer): GPUBuffer => {
    const mapAsync = target.mapAsync.bind(target);
    const destroy = target.destroy.bind(target);
    return Object.defineProperties(target, {
      mapAsync: {
        value: (...args: Parameters<typeof mapAsync>) => (counts.maps++, mapAsync(...args)),
      },
      destroy: { value: () => (counts.destroyed++, destroy()) },
    });
  };
  const device = watch(real, {
    createCommandEncoder: (call) => (...args) => encoder(call(...args) as GPUCommandEncoder),
    createBuffer: (call) => (...args) => (counts.buffers++, buffer(call(...args) as GPUBuffer)),
    createBindGroup: (call) => (descriptor) => {
      counts.bindGroups++;
      for (const { resource } of (descriptor as GPUBindGroupDescriptor).entries) {
        largestBinding = Math.max(largestBinding, (resource as GPUBufferBinding).size ?? Infinity);
      }
      return call(descriptor);
    },
    createComputePipeline: counting("pipelines"),
    pushErrorScope: (call) => (filter) => {
      scopes.push(filter as GPUErrorFilter);
      return call(filter);
    },
    popErrorScope: (call) => async () => {
      const filter = scopes.pop();
      const real = await call();
      const report = filter && reports.get(filter);
      if (!filter || report === undefined) return real;
      reports.delete(filter);
      if (report.afterMs > 0) await new Promise((resolve) => setTimeout(resolve, report.afterMs));
      return { message: report.message };
    },
  });
  return {
    gpuDevice: new Proxy(device, {
      get: (target, name) => name === "queue" ? queue : Reflect.get(target, name),
    }),
    during: (body) => {
      const before = { ...counts };
      const result = body();
      return { result, counts: difference(counts, before) };
    },
    counts: () => ({ ...counts }),
    largestBinding: () => largestBinding,
    report: (filter, message, afterMs = 0) => void reports.set(filter, { message, afterMs }),
  };
}

/** What was asked for between two moments. */
export function difference(after: Counts, before: Counts): Counts {
  const names = Object.keys(after) as (keyof Counts)[];
  return Object.fromEntries(names.map((name) => [name, after[name] - before[name]])) as Record<
    keyof Counts,
    number
  >;
}
