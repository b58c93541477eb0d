/**
 * A worker that serves one rank after the other: whenever it is told a program and the address of a module, whose tasks are among
 * the program's modules, or else where that address says.
 */

const scope = globalThis as unknown as {
  addEventListener(type: "message", listener: (event: MessageEvent) => void): void;
};

scope.addEventListener("message", async ({ data }) => {
  if (typeof data?.program !== "string") return; // What starts the rank, and the rank's own.
  const { serve, modules = {} } = await import(data.program);
  serve(modules[data.module] ?? await import(data.module));
});
