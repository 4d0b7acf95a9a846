import * as pulumi from "@pulumi/pulumi";

/** A resource that a component made, as the engine got it. */
export interface Made {
  readonly type: string;
  readonly name: string;
  readonly inputs: Record<string, unknown>;
}

const made: Made[] = [];

/** Puts a recorder in the engine's place. To be awaited before the component's module is imported. */
export const mockEngine = (): Promise<void> =>
  pulumi.runtime.setMocks(
    {
      newResource: ({ type, name, inputs }) => {
        made.push({ type, name, inputs });
        return { id: `${name}-id`, state: { stdout: "", ...inputs } };
      },
      call: ({ inputs }) => inputs,
    },
    "k3s-lab",
    "cluster",
  );

/** The resources that `create` makes, components left out, in the order they are made. */
export async function resourcesOf(create: () => unknown): Promise<readonly Made[]> {
  made.length = 0;
  await create();
  await pulumi.runtime.disconnect();
  return made.filter(({ type }) => !type.startsWith("k3s-lab:"));
}

/** The inputs of what a component made, by kind. */
export async function manifests(create: () => unknown): Promise<Record<string, Made["inputs"]>> {
  const resources = await resourcesOf(create);
  return Object.fromEntries(resources.map(({ type, inputs }) => [type.split(":").at(-1) ?? type, inputs]));
}
