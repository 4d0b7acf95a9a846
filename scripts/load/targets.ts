import { LabError, refusal } from "../../stacks/lib/errors.ts";
import type { Reached } from "../../stacks/lib/kubernetes.ts";
import { root } from "../../stacks/lib/paths.ts";
import { planOf } from "../../stacks/model/cluster-plan.ts";
import {
  type App,
  exampleHost,
  isOnCluster,
  type OnCluster,
  programNamed,
  readOnCluster,
  schemas,
} from "../../stacks/model/config.ts";
import { pathsOf } from "../../stacks/model/routes.ts";
import { authorityOf } from "../../stacks/observe/certificates.ts";
import { appStacks, findApp } from "../change/find-app.ts";
import { addressesOf, answersOf, getWithin, unknownHost, whoAnswers } from "../verify/ingress.ts";
import type { Target } from "./requests.ts";

/** Which pods get the load. */
export interface Asked {
  readonly stack: string;
  readonly config: OnCluster;
  /** Only those with pods. */
  readonly apps: readonly App[];
}

/**
 * The apps that a load is for.
 * @param words a stack, or an app as `findApp` takes it. @param stack the stack of the app.
 * @throws LabError (exit code 2) if they are not up, or have no pods.
 */
export async function loadTarget(words: string, stack: string | undefined): Promise<Asked> {
  const asked = stack === undefined && isStack(words) ? await allOf(words) : await oneOf(words, stack);
  const apps = asked.apps.filter(({ replicas }) => replicas > 0);
  if (apps.length === 0) throw refusal(`${words} has no pods to send requests to: its replicas are 0.`);
  return { ...asked, apps };
}

function isStack(words: string): boolean {
  const program = programNamed(words, Object.keys(schemas) as (keyof typeof schemas)[]);
  return program !== undefined && isOnCluster(program);
}

async function allOf(words: string): Promise<Asked> {
  const [stack = words] = await appStacks({ stack: words });
  const config = await readOnCluster(stack, root);
  return { stack, config, apps: config.apps };
}

async function oneOf(words: string, of: string | undefined): Promise<Asked> {
  const { stack, config, app } = await findApp(words, { stack: of });
  return { stack, config, apps: [app] };
}

/** Milliseconds that an answer may take. */
export const within = 10_000;

/**
 * The apps' targets: each app's first path, through every address of the Ingress controller. Probes each once, so that
 * no load hits anything that is not the lab's.
 * @throws LabError if something other than the app answers, or nothing.
 */
export async function targetsOf({ stack, config, apps }: Asked, api: Reached): Promise<readonly Target[]> {
  const plan = await planOf(config);
  const targets = apps.map(async (app): Promise<Target[]> => {
    const authority = app.tls ? await authorityOf(app) : undefined;
    const entry = authority === undefined ? "web" : "websecure";
    const addresses = await addressesOf(Promise.resolve(api), config, plan, entry);
    const host = app.host === undefined ? unknownHost : exampleHost(app.host);
    const path = pathsOf(app)[0]?.path ?? "/";
    const send = getWithin(within, authority);
    const own = answersOf(app);
    for (const address of addresses) {
      const answer = await whoAnswers(send, address, host, path);
      if (!own.includes(answer))
        throw new LabError(
          `${host}${path} through ${address}: ${answer}, but ${own.join(" or ")} should answer; no load was sent. Run scripts/lab verify ${stack}.`,
        );
    }
    return addresses.map((address) => ({ address, host, path, ...(authority ? { authority } : {}) }));
  });
  return (await Promise.all(targets)).flat();
}
