import { isReady, type KubernetesApi, type Service } from "../../stacks/lib/kubernetes.ts";
import { journal, mountPath, serviceNames, volumeNames, webName } from "../../stacks/model/concepts.ts";
import type { ConceptsConfig } from "../../stacks/model/config.ts";
import { askOnce, type CheckSpec } from "./check.ts";
import { isAppPod } from "./from-pods.ts";
import type { Answers } from "./in-pod.ts";
import { differentPods, type Get, nodesAt, parseSelf } from "./ingress.ts";
import type { AskPod } from "./inside.ts";

/** Sources for the checks of the stack `concepts`: its pods, their Services and volumes. */
interface ConceptsSources {
  readonly api: Promise<KubernetesApi>;
  /** Sends requests from this computer. */
  readonly http: Get;
  /** Queries from inside a pod. */
  readonly askPod: Promise<AskPod>;
}

/** What was found, optionally with details. */
type Found = string | readonly [found: string, more: string];

/** Compares only the finding with the expected text, not the details. */
const telling = (expected: string, actual: () => Promise<Found>) => async () => {
  const [found = "", more] = [await actual()].flat();
  return { found: more ? `${found} (${more})` : found, ok: found === expected };
};

/** What the ready pods see; the first also resolves names and queries Services. */
type Inside = readonly { readonly name: string; readonly address: string; readonly answers: Answers }[];

/** Checks the pods behind every type of Service, and the content of every kind of volume. */
export function checkConcepts(config: ConceptsConfig, deploy: string, sources: ConceptsSources): CheckSpec[] {
  if (config.replicas.web === 0) return [];
  const inside = askOnce(lookInside(config, sources));
  return [...checkServices(config, deploy, sources, inside), ...checkVolumes(config, deploy, inside)];
}

const fullName = (name: string, { namespace }: ConceptsConfig): string =>
  `${name}.${namespace}.svc.cluster.local`;

const urlOf = (name: string, config: ConceptsConfig): string => `http://${fullName(name, config)}/`;

/** Enough to reach every pod almost certainly: a random balancer misses one of n pods in n of e^15 runs. */
const requestsOf = ({ replicas }: ConceptsConfig): number => replicas.web * 15;

const fileOf = (volume: string): string => `${mountPath}/${volume}/${journal}`;

async function lookInside(config: ConceptsConfig, { api, askPod }: ConceptsSources): Promise<Inside> {
  const pods = (await (await api).pods(config.namespace)).filter(
    (pod) => isReady(pod) && isAppPod(pod, config.apps),
  );
  if (pods.length === 0) throw new Error("there is no ready pod to check from");
  const ask = await askPod;
  const { headless, externalName } = serviceNames;
  const times = requestsOf(config);
  const first = {
    // The trailing dot skips the search domains.
    names: [webName, headless, externalName].map((name) => `${fullName(name, config)}.`),
    counted: { [urlOf(webName, config)]: times, [urlOf(externalName, config)]: times },
  };
  const files = Object.values(volumeNames).map(fileOf);
  return Promise.all(
    pods.map(async (pod, index) => ({
      name: pod.metadata.name,
      address: pod.status.podIP ?? "",
      answers: await ask(pod, { names: [], urls: [], barred: [], files, ...(index === 0 ? first : {}) }),
    })),
  );
}

function checkServices(
  config: ConceptsConfig,
  deploy: string,
  { api, http }: ConceptsSources,
  inside: Promise<Inside>,
): CheckSpec[] {
  const pods = differentPods(config.replicas.web);
  const { nodePort, loadBalancer, headless, externalName } = serviceNames;
  const serviceOf = async (name: string): Promise<Service> => {
    const all = await (await api).services(config.namespace);
    const found = all.find(({ metadata }) => metadata.name === name);
    if (found === undefined) throw new Error(`there is no Service ${name}`);
    return found;
  };
  const told = async (name: string) =>
    (await inside)[0]?.answers.names[`${fullName(name, config)}.`] ?? "no answer";
  const asked = async (name: string) =>
    inWords((await inside)[0]?.answers.counts[urlOf(name, config)] ?? { "no answer": 1 });
  const check = (
    [id, name, title, expected]: readonly [id: string, name: string, title: string, expected: string],
    actual: () => Promise<Found>,
  ): CheckSpec => ({
    ...{ id: `services/${id}`, title: `${name}, ${title}`, expected },
    actual: telling(expected, actual),
    hint: `${deploy} See it: \`kubectl --namespace ${config.namespace} describe service ${name}\`.`,
  });
  const byLoadBalancer = async () => {
    const { spec, status } = await serviceOf(loadBalancer);
    const addresses = status.loadBalancer.ingress.flatMap(({ ip, hostname }) => ip ?? hostname ?? []);
    const ports = addresses.map((address) => `${address}:${spec.ports[0]?.port}`);
    return askEach(http, ports, requestsOf(config));
  };
  return [
    check(["cluster-ip", webName, "type ClusterIP, by its name from inside", pods], () => asked(webName)),
    check(["node-port", nodePort, "type NodePort, at the address of every node", pods], async () =>
      askEach(http, await nodePortsOf(await api, await serviceOf(nodePort)), requestsOf(config)),
    ),
    ...(config.services.loadBalancerPort === undefined
      ? []
      : [
          check(["load-balancer", loadBalancer, "type LoadBalancer, at its addresses", pods], byLoadBalancer),
        ]),
    check(["headless", headless, "headless: its name", "the addresses of its pods"], async () => {
      const addresses = (await inside).map(({ address }) => address).sort();
      const answer = await told(headless);
      return answer === addresses.join(", ") ? ["the addresses of its pods", answer] : answer;
    }),
    check(["external-name", externalName, "type ExternalName: its name", `that of ${webName}`], async () => {
      const address = (await serviceOf(webName)).spec.clusterIP;
      const answer = await told(externalName);
      return answer === address ? [`that of ${webName}`, answer] : answer;
    }),
    check(["external-name/pods", externalName, "type ExternalName, by its name from inside", pods], () =>
      asked(externalName),
    ),
  ];
}

const nodePortsOf = async (api: KubernetesApi, { spec }: Service): Promise<string[]> =>
  nodesAt(await api.nodes(), spec.ports[0]?.nodePort);

/** Sends requests to each address, each on its own connection: balancing is per connection. */
async function askEach(http: Get, addresses: readonly string[], times: number): Promise<Found> {
  if (addresses.length === 0) return "it has no address";
  const all = await Promise.all(
    addresses.map(async (address) => {
      const ask = () =>
        http(address, undefined).then(
          ({ status, body }) => parseSelf(body)?.pod ?? `status ${status}`,
          ({ message }: Error) => message,
        );
      const answers = await Promise.all(Array.from({ length: times }, ask));
      const groups = Object.entries(Object.groupBy(answers, (who) => who));
      const counts = Object.fromEntries(groups.map(([who, list = []]) => [who, list.length]));
      return [address, ...inWords(counts)] as const;
    }),
  );
  const [[, found] = ["", ""]] = all;
  const same = all.every(([, other]) => other === found);
  return same
    ? [found, all.map(([address, , more]) => `${address}: ${more}`).join("; ")]
    : all.map(([address, one, more]) => `${address}: ${one} (${more})`).join("; ");
}

/** How many pods answered, and how many requests each; a key that is not a pod's name is an error. */
function inWords(counts: Readonly<Record<string, number>>): readonly [found: string, more: string] {
  const all = Object.entries(counts).sort(([one], [other]) => one.localeCompare(other));
  const [pods, others] = [true, false].map((wanted) =>
    all.filter(([who]) => who.startsWith(`${webName}-`) === wanted),
  );
  const lost = (others ?? []).map(([why, times]) => `; ${times} not by a pod: ${why}`).join("");
  return [
    `${differentPods(pods?.length ?? 0)}${lost}`,
    (pods ?? []).map(([pod, times]) => `${pod} ${times}`).join(", "),
  ];
}

const alone = "each pod finds itself alone";
const together = "each pod finds all of them";

function checkVolumes({ namespace }: ConceptsConfig, deploy: string, inside: Promise<Inside>): CheckSpec[] {
  const kinds = [
    ["host-path", volumeNames.hostPath, "a folder of the node", together],
    ["empty-dir", volumeNames.emptyDir, "a folder of the pod, deleted with it", alone],
    ["persistent-volume", volumeNames.static, "a PersistentVolume and its claim", together],
    ["claim", volumeNames.dynamic, "a claim whose volume a StorageClass provisions", together],
  ] as const;
  return kinds.map(([id, volume, title, expected]) => ({
    ...{ id: `volumes/${id}`, title: `${volume}, ${title}`, expected },
    actual: telling(expected, async () => describeJournals(await inside, fileOf(volume), expected)),
    hint: `${deploy} All pods must be on one node: \`kubectl --namespace ${namespace} get pods,persistentvolumeclaims --output wide\`.`,
  }));
}

/** What the pods read in a volume's journal: the pods that have started on it, now or earlier. */
function describeJournals(pods: Inside, file: string, expected: typeof alone | typeof together): Found {
  const names = pods.map(({ name }) => name);
  const known = new Set<string>();
  for (const { name, answers } of pods) {
    const text = answers.files[file] ?? "unknown";
    const list = text.split("\n").filter((line) => line.startsWith(`${webName}-`));
    const wanted = expected === alone ? [name] : names;
    const missing = wanted.filter((one) => !list.includes(one));
    if (missing.length > 0)
      return `${name} does not find ${missing.join(", ")} in ${file}: ${list.join(", ") || text.trim()}`;
    if (expected === alone && list.length > 1) return `${name} finds ${list.join(", ")} in ${file}`;
    for (const one of list) known.add(one);
  }
  const earlier = known.size - names.length;
  return expected === alone ? expected : [expected, `${differentPods(names.length)}, and ${earlier} earlier`];
}
