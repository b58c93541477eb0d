/**
 * What the adapter uses of jax-js, as types of its own: the framework comes as an argument, and nothing is imported of it.
 *
 * @module
 */

/** Where an array of jax-js lies. */
export type JaxDevice = "cpu" | "wasm" | "webgpu" | "webgl";

/**
 * An array of jax-js. References to it are counted: who passes one to a function gives it up, `ref` is one more, and
 * `dispose` gives one up.
 */
export interface JaxArray {
  /** The extents. */
  readonly shape: readonly number[];
  /** How elements are stored, such as "float32". */
  readonly dtype: string;
  /** Where they lie. */
  readonly device: JaxDevice;
  /** References that there are; 0 once the array is gone. */
  readonly refCount: number;
  /** The same array, with one reference more. */
  readonly ref: this;
  /** Gives up a reference. */
  readonly dispose: () => void;
  /** Computes what is pending and copies the elements to the host; gives up a reference. */
  readonly data: () => Promise<ArrayLike<number>>;
  /** Computes what is pending and tells the buffer, on WebGPU; gives up a reference. */
  readonly gpuBuffer: () => Promise<GPUBuffer>;
}

/** The module of jax-js. */
export interface Jax<J extends JaxArray = JaxArray> {
  /** How arrays are made. */
  readonly numpy: {
    /** Copies numbers from the host. */
    readonly array: (
      values: Float32Array<ArrayBuffer>,
      options: { readonly shape: number[]; readonly device: JaxDevice },
    ) => J;
    /** Makes an array of zeros. */
    readonly zeros: (shape: number[], options: { readonly device: JaxDevice }) => J;
  };
  /** The GPUDevice of its WebGPU backend. */
  readonly getWebGPUDevice: () => GPUDevice;
}
