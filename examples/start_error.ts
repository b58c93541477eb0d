/**
 * What keeps the demo from starting, said in one line.
 *
 * @module
 */

const NAME = "StartError";

/**
 * Makes the error after which the demo prints one line and exits with 2.
 *
 * @param reason what must be and what is
 * @param options `cause`: the platform's own error
 * @returns the error
 */
export function startError(reason: string, options?: ErrorOptions): Error {
  const error = new Error(`Cannot start the demo as ${reason}`, options);
  // Not a class: an error that comes from a worker has its name, and no more.
  Object.defineProperty(error, "name", { value: NAME });
  return error;
}

/** Whether an error is one of {@linkcode startError}, made on any thread. */
export function isStartError(error: unknown): error is Error {
  return error instanceof Error && error.name === NAME;
}
