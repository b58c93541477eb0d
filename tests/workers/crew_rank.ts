/**
 * A worker that serves ranks one after the other: whenever it is told two addresses, those of the module that has `serve` and of
 * the module that has the tasks, which a program may have made into one.
 */

const scope = globalThis as unknown as {
  addEventListener(type: "message", listener: (event: MessageEvent) => void): void;
};

scope.addEventListener("message", async ({ data }) => {
  if (!Array.isArray(data)) return; // What starts the rank, and the rank's own.
  const [{ serve }, bodies] = await Promise.all(data.map((address) => import(address)));
  serve(bodies);
});
