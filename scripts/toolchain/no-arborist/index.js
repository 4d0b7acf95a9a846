// In place of npm's Arborist, which Pulumi's SDK loads at each start, with a hundred packages, and uses only to serialize
// functions, as those of dynamic providers. The lab has none to serialize.
exports.Arborist = class {
  constructor() {
    throw new Error(
      "This checkout leaves out the package that Pulumi needs to serialize functions (dynamic providers). Remove @npmcli/arborist from overrides in package.json and run `npm install`.",
    );
  }
};
