/**
 * One exchange with the other ranks: launch, read back, reduce, with every failure of this rank travelling to all.
 *
 * The readback is given to the collective as a promise, so that a rank's own failure travels to all. All ranks then get
 * a `CollectiveError`, the failing one too, with the original error as its `cause`.
 */

/**
 * Launches this rank's part and hands its readback to a collective, which is called before the first await: ranks match
 * calls by program order, so parallel branches must not overtake each other. What `launch` throws becomes this rank's
 * failure on every rank. Resolves to what the collective did, what was launched, and what this rank gave.
 */
export async function exchange<T extends { readonly wire: Promise<Float64Array> }, R>(
  launch: () => T,
  collective: (sending: Promise<Float64Array>) => Promise<R>,
) {
  const reading = (async () => {
    const launched = launch();
    return { launched, own: await launched.wire };
  })();
  const sending = reading.then(({ own }) => own);
  sending.catch(() => {}); // An engine that gives up early must not leave a rejection that nobody handles.
  const total = await collective(sending);
  // An engine that resolves although this rank has failed is not believed.
  return { total, ...await reading };
}
