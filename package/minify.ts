/**
 * Takes spaces, and names of what is local, out of all JavaScript of a folder. Functions and classes keep their names: errors and
 * stacks show them, and combining functions are compared by them.
 *
 * Run by pack.ts, with a lock of its own: nothing else needs the minifier.
 */

/** Not for the checker, which would fetch it for everybody. */
const MINIFIER = "npm:terser@5.51.4";
const { minify }: {
  readonly minify: (source: string, options: unknown) => Promise<{ readonly code?: string }>;
} = await import(MINIFIER);

const OPTIONS = {
  module: true,
  ecma: 2020,
  compress: false,
  mangle: { toplevel: false, keep_fnames: true, keep_classnames: true },
  // By which bundlers know what may go.
  format: { comments: false, preserve_annotations: true },
};

async function minifyIn(folder: string): Promise<void> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const path = `${folder}/${name}`;
    if (isDirectory) await minifyIn(path);
    else if (name.endsWith(".js")) {
      const { code } = await minify(await Deno.readTextFile(path), OPTIONS);
      await Deno.writeTextFile(path, code ?? "");
    }
  }
}

await minifyIn(Deno.args[0]);
