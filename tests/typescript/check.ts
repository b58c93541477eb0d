/**
 * Checks that the published sources compile with TypeScript and @webgpu/types outside Deno, as a bundler's user compiles
 * them: part of `deno task ok`.
 */

const root = new URL("../../", import.meta.url);
const { exports } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
/** Installed into a folder of their own: no task of the project needs them, and Deno fetches what its lock names before any. */
const devDependencies = { typescript: "5.9.3", "@webgpu/types": "0.1.74" };

async function run(cwd: string, ...args: string[]): Promise<void> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd }).output();
  if (code === 0) return;
  await Deno.stderr.write(stdout);
  await Deno.stderr.write(stderr);
  throw new Error(`Cannot go on as deno ${args.join(" ")} failed: exit code is ${code}`);
}

const folder = await Deno.makeTempDir({ prefix: "typescript-" });
try {
  await Deno.writeTextFile(`${folder}/package.json`, JSON.stringify({ devDependencies }));
  await Deno.writeTextFile(
    `${folder}/tsconfig.json`,
    JSON.stringify({
      compilerOptions: {
        target: "ES2022",
        module: "ESNext",
        moduleResolution: "bundler",
        // What Node 20 has, which is ES2023 and Atomics.waitAsync; Float16Array where it is there, and Symbol.dispose.
        lib: [
          ...["ES2023", "ES2024.SharedMemory", "ES2024.ArrayBuffer"],
          ...["ESNext.Float16", "ESNext.Disposable", "DOM", "DOM.Iterable"],
        ],
        types: ["@webgpu/types"],
        allowImportingTsExtensions: true,
        verbatimModuleSyntax: true,
        erasableSyntaxOnly: true,
        noEmit: true,
        strict: true,
      },
      // MPI is for Deno alone, by its FFI.
      files: Object.entries<string>(exports).filter(([name]) => name !== "./mpi")
        .map(([, entry]) => new URL(entry, root).pathname),
    }),
  );
  await run(folder, "install", "--quiet", "--node-modules-dir=auto");
  await run(
    folder,
    "run",
    "--allow-all",
    `npm:typescript@${devDependencies.typescript}/tsc`,
    "-p",
    ".",
  );
  console.log(`compiles with typescript ${devDependencies.typescript} outside Deno`);
} finally {
  await Deno.remove(folder, { recursive: true });
}
