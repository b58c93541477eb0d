/**
 * The images: UCI's optical handwritten digits, as stored beside this file (source and licence: `DIGITS.md`).
 *
 * @module
 */

/** Images with their labels. */
export interface Images {
  /** Number of images. */
  readonly count: number;
  /** Pixels, shape (count, 8, 8, 1), channels last, 0 (paper) to 1 (ink). */
  readonly pixels: Float32Array;
  /** The digit that each image shows, 0..9. */
  readonly labels: Uint8Array;
}

/** Images to learn from and images to be judged by. */
export interface Digits {
  /** The first 1,437 images. */
  readonly training: Images;
  /** The last 360 images. */
  readonly test: Images;
}

/** Side of an image in pixels. */
export const SIDE = 8;
/** Number of different digits. */
export const CLASSES = 10;

/** Number of images to learn from. */
export const TRAINING_IMAGES = 1437;

const IMAGES = 1797;
const INK = 16;

/**
 * Unpacks the images.
 *
 * @param compressed the bytes of `digits.bin.gz`
 * @returns training and test images; the split is always the same
 * @throws TypeError where the bytes are not those of `digits.py`
 */
export async function readDigits(compressed: Uint8Array<ArrayBuffer>): Promise<Digits> {
  const stream = new Blob([compressed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = await new Response(stream).bytes();
  const wanted = IMAGES * (SIDE * SIDE + 1);
  if (bytes.length !== wanted) {
    throw new TypeError(
      `Cannot read the digits as the file must hold ${wanted} bytes: current length is ${bytes.length}`,
    );
  }
  const slice = (from: number, to: number): Images =>
    Object.freeze({
      count: to - from,
      pixels: Float32Array.from(
        bytes.subarray(from * SIDE * SIDE, to * SIDE * SIDE),
        (value) => value / INK,
      ),
      labels: bytes.slice(IMAGES * SIDE * SIDE + from, IMAGES * SIDE * SIDE + to),
    });
  return Object.freeze({
    training: slice(0, TRAINING_IMAGES),
    test: slice(TRAINING_IMAGES, IMAGES),
  });
}
