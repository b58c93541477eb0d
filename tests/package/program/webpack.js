/** Builds the page in the folder that it is run in, by the webpack beside this file; unminified, as only that takes long. */

import webpack from "webpack";

const context = process.cwd();
webpack({
  ...{ mode: "production", context, entry: "./page.js", optimization: { minimize: false } },
  output: { path: `${context}/site/webpack`, filename: "page.js" },
}, (error, stats) => {
  if (!error && !stats.hasErrors()) return;
  console.error(error ?? stats.toString({ all: false, errors: true }));
  process.exitCode = 1;
});
