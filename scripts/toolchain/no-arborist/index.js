// In place of npm's Arborist, which Pulumi's SDK loads at each start, with a hundred packages, and uses only to serialize
// functions. The lab has none to serialize.
exports.Arborist = class {
  constructor() {
    throw new Error("Functions cannot be serialized here: see overrides in package.json");
  }
};
