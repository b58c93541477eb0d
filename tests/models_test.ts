import { queuedKit, referenceKit } from "./reference_kit.ts";
import { modelSuite } from "./suites/models.ts";
import { treeArithmeticSuite } from "./suites/tree_arithmetic.ts";

for (const suite of [modelSuite, treeArithmeticSuite]) {
  suite(referenceKit);
  suite(queuedKit);
}
