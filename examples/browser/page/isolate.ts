/// <reference lib="dom" />
/**
 * Isolating the page where its host does not: by a service worker that adds the two headers.
 *
 * @module
 */

const TRIED = "syncbn: isolation was tried";

/**
 * Registers the service worker where it is needed and can be had.
 *
 * @param address the service worker's
 * @returns whether the page loads again now
 */
export async function isolate(address: URL): Promise<boolean> {
  if (crossOriginIsolated || !navigator.serviceWorker || sessionStorage.getItem(TRIED)) {
    return false;
  }
  sessionStorage.setItem(TRIED, "yes"); // Once: where it does not help, the page goes on without.
  try {
    await navigator.serviceWorker.register(address);
    await navigator.serviceWorker.ready;
  } catch {
    return false; // The host has no such file, or forbids it.
  }
  location.reload();
  return true;
}
