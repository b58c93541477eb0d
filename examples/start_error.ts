/**
 * What keeps a program from doing its work and its user can mend: said in one line.
 *
 * @module
 */

const NAME = "StartError";

/**
 * Makes the error after which a program prints one line and exits with 2.
 *
 * @param reason what must be and what is; what the program cannot do stands before it when it is printed
 * @param options `cause`: the platform's own error
 * @returns the error
 */
export function startError(reason: string, options?: ErrorOptions): Error {
  const error = new Error(reason, options);
  // Not a class: an error that comes from a worker has its name, and no more.
  Object.defineProperty(error, "name", { value: NAME });
  return error;
}

/** Whether an error is one of {@linkcode startError}, made on any thread. */
export function isStartError(error: unknown): error is Error {
  return error instanceof Error && error.name === NAME;
}
