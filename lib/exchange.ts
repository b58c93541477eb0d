/**
 * One exchange with the other ranks: launch, read back, reduce, with every failure of this rank travelling to all.
 *
 * A readback that takes its time is given to the collective as a promise, and so is a failure, which thus travels to all.
 * All ranks then get a `CollectiveError`, the failing one too, with the original error as its `cause`. What a device has
 * read at once is given as it is: a group that waits for a promise keeps a timer meanwhile.
 */

/** A wire that is read back, or will be. */
export type Wire = Float64Array | Promise<Float64Array>;

/**
 * Launches this rank's part and hands its readback to a collective, which is called before the first await: ranks match
 * calls by program order, so parallel branches must not overtake each other. What `launch` throws becomes this rank's
 * failure on every rank. Resolves to what the collective did, what was launched, and what this rank gave.
 */
export async function exchange<T extends { readonly wire: Wire }, R>(
  launch: () => T,
  collective: (sending: Wire) => Promise<R>,
) {
  const { launched, sending } = attempt(launch);
  // An engine that gives up early must not leave a rejection that nobody handles.
  if (sending instanceof Promise) sending.catch(() => {});
  const total = await collective(sending);
  // An engine that resolves although this rank has failed is not believed.
  const own = sending instanceof Promise ? await sending : sending;
  return { total, own, launched: launched! };
}

function attempt<T extends { readonly wire: Wire }>(launch: () => T) {
  try {
    const launched = launch();
    return { launched, sending: launched.wire };
  } catch (cause) {
    return { sending: Promise.reject<Float64Array>(cause) };
  }
}
