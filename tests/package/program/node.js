/** In Node. */

import { compare } from "./compare.js";

console.log(JSON.stringify(await compare(new URL("./rank.js", import.meta.url))));
