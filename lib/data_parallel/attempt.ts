/** A failure that waits for its turn: every rank must call a collective, the one whose arguments are wrong too. */

/** What came of an attempt. */
export interface Attempt<T> {
  /** The result; undefined where there is none. */
  readonly value: T | undefined;
  /** Gives the result, or throws what was thrown. */
  readonly get: () => T;
}

/** Runs a body at once and keeps what it throws. */
export function attempt<T>(body: () => T): Attempt<T> {
  try {
    const value = body();
    return { value, get: () => value };
  } catch (error) {
    const get = (): never => {
      throw error;
    };
    return { value: undefined, get };
  }
}
