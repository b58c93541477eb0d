/** Builds the page by webpack; unminified, as only that takes long. */

import webpack from "webpack";

const context = import.meta.dirname;
webpack({
  ...{ mode: "production", context, entry: "./page.js", optimization: { minimize: false } },
  output: { path: `${context}/site/webpack`, filename: "page.js" },
}, (error, stats) => {
  if (!error && !stats.hasErrors()) return;
  console.error(error ?? stats.toString({ all: false, errors: true }));
  process.exitCode = 1;
});
