/**
 * The service worker that isolates the page: it hands on what the host sends, with the two headers added.
 *
 * @module
 */

interface FetchEvent extends Event {
  readonly request: Request;
  readonly respondWith: (response: Promise<Response>) => void;
}

const scope = globalThis as unknown as EventTarget & {
  readonly skipWaiting: () => void;
  readonly clients: { readonly claim: () => void };
};

scope.addEventListener("install", () => scope.skipWaiting());
scope.addEventListener("activate", () => scope.clients.claim());
scope.addEventListener("fetch", (event) => {
  const { request, respondWith } = event as FetchEvent;
  respondWith.call(event, isolated(request));
});

async function isolated(request: Request): Promise<Response> {
  const response = await fetch(request);
  const headers = new Headers(response.headers);
  headers.set("cross-origin-opener-policy", "same-origin");
  headers.set("cross-origin-embedder-policy", "require-corp");
  const { status, statusText } = response;
  return new Response(response.body, { status, statusText, headers });
}
