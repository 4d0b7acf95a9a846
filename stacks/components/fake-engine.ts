import * as pulumi from "@pulumi/pulumi";

/** A resource that a component registered, as the engine received it. */
export interface Made {
  readonly type: string;
  readonly name: string;
  readonly inputs: Record<string, unknown>;
}

const made: Made[] = [];

/** Replaces the engine with a recorder. Await it before you import the component's module. */
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

/** The resources that `create` registers, in order, without components. */
export async function resourcesOf(create: () => unknown): Promise<readonly Made[]> {
  made.length = 0;
  await create();
  await pulumi.runtime.disconnect();
  return made.filter(({ type }) => !type.startsWith("k3s-lab:"));
}

/** The inputs of the registered resources, by kind. */
export async function manifests(create: () => unknown): Promise<Record<string, Made["inputs"]>> {
  const resources = await resourcesOf(create);
  return Object.fromEntries(resources.map(({ type, inputs }) => [type.split(":").at(-1) ?? type, inputs]));
}
