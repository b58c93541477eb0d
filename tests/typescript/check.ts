/**
 * Checks that the published sources compile with TypeScript and @webgpu/types outside Deno, as a bundler's user compiles
 * them: part of `deno task ok`. The versions are those of deno.json.
 */

const root = new URL("../../", import.meta.url);
const { imports, exports } = JSON.parse(
  await Deno.readTextFile(new URL("deno.json", root)),
);

/** `npm:name@1.2.3` as [name, 1.2.3]. */
function pinned(name: string): [string, string] {
  const [, version] = /^npm:.+@([\d.]+)$/.exec(imports[name]) ?? [];
  if (version) return [name, version];
  throw new Error(
    `Cannot check with ${name} as deno.json must pin it: current value is ${imports[name]}`,
  );
}

async function run(cwd: string, ...args: string[]): Promise<void> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd }).output();
  if (code === 0) return;
  await Deno.stderr.write(stdout);
  await Deno.stderr.write(stderr);
  throw new Error(`Cannot go on as deno ${args.join(" ")} failed: exit code is ${code}`);
}

const folder = await Deno.makeTempDir({ prefix: "typescript-" });
try {
  const devDependencies = Object.fromEntries(["typescript", "@webgpu/types"].map(pinned));
  await Deno.writeTextFile(`${folder}/package.json`, JSON.stringify({ devDependencies }));
  await Deno.writeTextFile(
    `${folder}/tsconfig.json`,
    JSON.stringify({
      compilerOptions: {
        target: "ES2022",
        module: "ESNext",
        moduleResolution: "bundler",
        // The newest built-ins that the sources name: Map.groupBy, Float16Array and Symbol.dispose.
        lib: ["ES2024", "ESNext.Float16", "ESNext.Disposable", "DOM", "DOM.Iterable"],
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
