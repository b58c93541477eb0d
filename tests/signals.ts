/** A signal that knows how many listen to it. */

/** Makes the signal. */
export function counting(): { readonly signal: AbortSignal; readonly listeners: () => number } {
  const { signal } = new AbortController();
  let count = 0;
  const { addEventListener: add, removeEventListener: remove } = signal;
  signal.addEventListener = (...all: Parameters<typeof add>) => {
    count++;
    add.apply(signal, all);
  };
  signal.removeEventListener = (...all: Parameters<typeof remove>) => {
    count--;
    remove.apply(signal, all);
  };
  return { signal, listeners: () => count };
}
