import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { root } from "../../stacks/lib/paths.ts";
import { isPortTaken } from "../../stacks/lib/ports.ts";

/** A port of loopback that nobody listens on; the system gives higher ones to tests that run beside this one. */
export async function freePort(): Promise<number> {
  let port = 20_000 + (process.pid % 10_000);
  while (await isPortTaken(port)) port += 1;
  return port;
}

/** A container of a `FakeDocker`. */
export interface FakeContainer {
  readonly name: string;
  /** Docker's word, such as running, exited or paused. */
  readonly status: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Default: an image of K3s. */
  readonly image?: string;
  /** The id of that image. Default: one that bears no labels. */
  readonly imageId?: string;
  /** What it calls itself. Default: its name. */
  readonly hostname?: string;
  /** The local volumes of pods in its data. Default: none. */
  readonly storage?: string;
  readonly address?: string;
  /** The address that it gets at each start. Default: the one that it has. */
  readonly fixed?: string;
  /** Whether its data says that its cluster was made to its end. Default: true. */
  readonly made?: boolean;
  /** What the start was called that it still runs from. Default: none. */
  readonly boot?: string;
  /** The client certificate in its kubeconfig, in base64. Default: it has none. */
  readonly certificate?: string;
  /** Whether the cluster knows its node. Default: true. */
  readonly known?: boolean;
  /** Whether its node is on lists of nodes. Default: as the cluster knows it. */
  readonly listed?: boolean;
  /** What the cluster says of its node. Default: that it is Ready. */
  readonly ready?: boolean;
  /** Whether its K3s is out of the cluster and knows itself alone. Default: false. */
  readonly alone?: boolean;
  /** Whether its registries.yaml is for root alone. Default: false. */
  readonly hidden?: boolean;
  /** Default: none. */
  readonly ports?: Readonly<
    Record<string, readonly { readonly HostIp: string; readonly HostPort: string }[]>
  >;
}

/** Makes containers of a k3d cluster "k3d" with three servers, that run. @param mine the marks of their owner. */
export const k3dNodes =
  (mine: Readonly<Record<string, string>>, image: string) =>
  (name: string, role: string, more: Partial<FakeContainer> = {}): FakeContainer => ({
    ...{ name, status: "running", boot: "b1", address: `172.28.0.${name.length + Number(name.at(-1))}` },
    ...more,
    labels: {
      ...{ ...mine, app: "k3d", "k3d.cluster": "k3d", "k3d.role": role, "k3d.server.loadbalancer": "" },
      ...{ "k3s-lab.generation": "g1", "k3s-lab.servers": "3", "k3s-lab.image": image },
      ...more.labels,
    },
  });

/** What a Docker daemon has. */
export interface World {
  readonly containers: readonly FakeContainer[];
  readonly networks: readonly { readonly name: string; readonly labels: Readonly<Record<string, string>> }[];
  readonly volumes: readonly { readonly name: string; readonly labels: Readonly<Record<string, string>> }[];
  /** Ids of images that bear a lab's labels. Default: none. */
  readonly commits?: readonly string[];
  /** Whether the output of a command in a container is lost, with exit code 0. Default: false. */
  readonly loses?: boolean;
  /** What every call says instead, with exit code 1; the real words. Default: none. */
  readonly broken?: string;
  /** What calls with this text in their arguments say instead. Default: none. */
  readonly breaks?: { readonly on: string; readonly says: string };
  /** The members of etcd; one that has not started has no name. Default: none. */
  readonly members?: readonly { readonly name?: string; readonly address: string }[];
  /** Nodes that the cluster knows and that K3s has not marked as members of etcd. Default: none. */
  readonly unmarked?: readonly string[];
  /** Nodes that the cluster does not know although etcd may have a member of theirs. Default: none. */
  readonly unmade?: readonly string[];
  /** How often the cluster says that its agents are not Ready; counted down. Default: never. */
  readonly notReady?: number;
  /** Whether every call hangs. Default: false. */
  readonly hangs?: boolean;
  /** Exit code and words of k3d. Default: it makes the servers of its config. */
  readonly k3d?: { readonly exitCode: number; readonly says: string };
}

/** Programs `docker` and `k3d` that act on a world in a file, with the words of the real ones. */
export interface FakeDocker {
  /** The folder to put in front of PATH. */
  readonly bin: string;
  set(world: Partial<World>): Promise<void>;
  world(): Promise<World>;
  /** The arguments of every call of docker so far that changes something, a line each. */
  changes(): Promise<string[]>;
  /** Runs `work` with these programs first in PATH. */
  within<Result>(work: () => Promise<Result>): Promise<Result>;
  remove(): Promise<void>;
}

const program = (folder: string) => `#!${process.execPath}
const { readFileSync, writeFileSync, appendFileSync, mkdirSync, renameSync, rmdirSync } = require("node:fs");
const { execFileSync } = require("node:child_process");
const args = process.argv.slice(2);
const file = ${JSON.stringify(join(folder, "world.json"))};
// One call at a time, as the daemon takes what changes it.
const lock = file + ".lock";
for (;;) {
  try { mkdirSync(lock); break; } catch { Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5); }
}
process.on("exit", () => rmdirSync(lock));
const world = JSON.parse(readFileSync(file, "utf8"));
// At once: a test that looks meanwhile sees all or nothing of it.
const save = () => { writeFileSync(file + ".new", JSON.stringify(world)); renameSync(file + ".new", file); };
const die = (words) => { console.error(words); process.exit(1); };
const changes = ${JSON.stringify(join(folder, "changes"))};
const log = () => appendFileSync(changes, args.join(" ") + "\\n");
if (world.hangs) { process.on("SIGTERM", () => process.exit(1)); setTimeout(() => {}, 600000); return; }
if (world.broken) die(world.broken);
if (world.breaks && args.join(" ").includes(world.breaks.on)) die(world.breaks.says);
const filters = args.flatMap((arg, index) => (args[index - 1] === "--filter" ? [arg] : []));
const format = args[args.indexOf("--format") + 1] ?? "";
const ancestors = filters.flatMap((filter) => filter.startsWith("ancestor=") ? [filter.slice(9)] : []);
const passes = (one) => (!ancestors.length || ancestors.includes(one.imageId)) && filters.every((filter) => {
  const [, kind, value] = /^([a-z]+)=(.*)$/.exec(filter);
  if (kind === "label") { const [key, ...rest] = value.split("="); return one.labels[key] === rest.join("="); }
  if (kind === "publish") return Object.values(one.ports ?? {}).flat().some(({ HostPort }) => HostPort === value.split("/")[0]);
  if (kind === "network") return "address" in one;
  return true;
});
const show = (one) => format
  .replaceAll(/{{\\.Label "([^"]+)"}}/g, (_, key) => one.labels[key] ?? "")
  .replaceAll(/{{\\.(Names?|ID)}}/g, one.name).replaceAll("\\\\t", "\\t");
const list = (all) => { for (const one of all.filter(passes)) console.log(args.includes("--quiet") ? one.name : show(one)); };
const find = (name) => world.containers.find((one) => one.name === name);
const need = (name) => find(name) ?? die("Error response from daemon: No such container: " + name);
const inspected = (one) => ({
  Id: one.name, Name: "/" + one.name, State: { Status: one.status, ExitCode: 0 }, Image: one.imageId ?? "sha256:released",
  Config: { Hostname: one.hostname ?? one.name, Image: one.image ?? "rancher/k3s:v1.25.4-k3s1", Env: ["K3S_TOKEN=very-secret"], Labels: one.labels, Entrypoint: ["/bin/k3s"] },
  HostConfig: { PortBindings: one.ports ?? {} },
  NetworkSettings: { Networks: { "k3d-k3d": { IPAddress: one.address ?? "", IPAMConfig: { IPv4Address: one.fixed ?? one.address ?? "" } } } },
});
const [verb, sub] = args;
if (verb === "ps") list(world.containers);
else if (verb === "inspect") {
  const one = find(args.at(-1)) ?? die("Error: No such object: " + args.at(-1));
  console.log(JSON.stringify([inspected(one)]));
} else if (verb === "exec") {
  const rest = args.slice(1).filter((arg) => !arg.startsWith("--"));
  const one = need(rest[0]);
  if (one.status === "paused") die("Error response from daemon: Container " + one.name + " is paused, unpause the container before exec");
  if (one.status !== "running") die("Error response from daemon: container " + one.name + " is not running");
  const asked = args.join(" ");
  if (world.loses) {}
  else if (asked.includes("k3s-lab-made ] &&")) { console.log(one.made === false ? "unmade" : "made"); if (one.certificate) console.log("certificate " + one.certificate); if (one.boot) console.log(one.boot); console.log("end"); }
  else if (asked.includes("touch /var/lib/rancher/k3s/k3s-lab-made")) { one.made = true; save(); }
  else if (asked.includes("k3s-lab-boot")) { one.boot = args.at(-1); save(); }
  else if (asked.includes("chmod 600 /etc/rancher/k3s/registries.yaml")) { one.hidden = true; save(); }
  else if (asked.includes("/db/info")) console.log(JSON.stringify({ members: (world.members ?? []).map(({ name, address }, index) => ({ ID: index + 1, ...(name && { name }), peerURLs: ["https://" + address + ":2380"] })) }));
  else if (asked.includes("patch node")) {
    // K3s's controller heeds none but marked nodes, and removes the member that has both name and address.
    log();
    const node = args[args.indexOf("node") + 1];
    if (world.unmade?.includes(node)) die('Error from server (NotFound): nodes "' + node + '" not found');
    const { labels, annotations } = JSON.parse(args.at(-1)).metadata;
    if (labels?.["node-role.kubernetes.io/etcd"] === "true") world.unmarked = (world.unmarked ?? []).filter((one) => one !== node);
    const of = (key) => annotations["etcd.k3s.cattle.io/" + key];
    if (of("remove") === "true" && !world.unmarked?.includes(node)) world.members = (world.members ?? []).filter(({ name = "", address }) => name !== of("node-name") || address !== of("node-address"));
    save();
  }
  else if (asked.includes("kubectl create")) {
    log();
    const node = JSON.parse(readFileSync(0, "utf8")).metadata.name;
    world.unmade = (world.unmade ?? []).filter((one) => one !== node);
    world.unmarked = [...(world.unmarked ?? []), node];
    save();
  }
  else if (asked.includes("get nodes") && asked.includes("Ready")) {
    for (const node of world.containers.filter(({ labels }) => /^(server|agent)$/.test(labels["k3d.role"])))
      console.log(node.name + (node.ready === false || (node.labels["k3d.role"] === "agent" && world.notReady > 0) ? " False" : " True"));
    if (world.notReady > 0) { world.notReady--; save(); }
  }
  else if (asked.includes("get nodes")) for (const { name } of one.alone ? [one] : world.containers.filter(({ known, listed, alone, labels }) => known !== false && listed !== false && !alone && /^(server|agent)$/.test(labels["k3d.role"]))) console.log("node/" + name);
  else if (asked.includes("/k3s/storage")) { if (one.storage) console.log(one.storage); }
  else if (asked.includes("get deployments,pods")) console.log('{"items": []}');
  else if (asked.includes("get node")) {
    const { known, alone } = find(args.at(-1)) ?? {};
    if (!asked.includes("--ignore-not-found") && (known === false || alone)) die('Error from server (NotFound): nodes "' + args.at(-1) + '" not found');
    console.log("node/" + args.at(-1));
  }
  else if (asked.includes("get namespace kube-system")) console.log("uid-1");
  if (/kubectl.* (annotate|delete|drain) /.test(asked)) log();
} else if (verb === "cp") {
  // As in upstream's image of K3s, there is no folder /etc/rancher in a new container, and docker cp makes none.
  const [, name, missing] = /^([^/]+):(\\/etc\\/rancher\\/.*)\\//.exec(args[2]) ?? [];
  if (missing) die("Error response from daemon: Could not find the file " + missing + " in container " + name);
  const [, into] = /^([^/]+):/.exec(args[2]) ?? [];
  // An archive, or the content of a folder, comes with modes: those are logged too, such as "mode 644 /a/b".
  const listed = into === undefined ? "" : args[1] === "-"
    ? execFileSync("sh", ["-c", "d=$(mktemp -d) && tar -xpf - -C $d && cd $d && find . -type f -printf '%m %P\\n'; rm -r $d"], { stdio: [0] })
    : execFileSync("find", [args[1], "-printf", "%m %P\\n"]);
  if (into !== undefined || args[2] !== "-") {
    log();
    for (const line of String(listed).split("\\n").filter(Boolean)) appendFileSync(changes, "mode " + line.replace(" ", " /") + "\\n");
    if (into === undefined) writeFileSync(args[2], "");
  }
  else if (need(args[1].split(":")[0]).made === false || !args[1].includes("k3s-lab-made")) die("Error response from daemon: Could not find the file " + args[1].split(":")[1] + " in container " + args[1].split(":")[0]);
} else if (verb === "image" && sub === "ls") { for (const id of world.commits ?? []) console.log(id); }
else if (verb === "image" || verb === "logs") {}
else if (verb === "network" && sub === "ls") list(world.networks);
else if (verb === "volume" && sub === "ls") list(world.volumes);
else if (verb === "network" && sub === "inspect") {
  const one = world.networks.find(({ name }) => name === args.at(-1)) ?? die("Error response from daemon: network " + args.at(-1) + " not found");
  console.log(format.includes("Subnet") ? "172.28.0.0/16" : one.name);
} else {
  log();
  const name = args.at(-1);
  const labels = Object.fromEntries(args.flatMap((arg, i) => (args[i - 1] === "--label" ? [arg.split(/=(.*)/s).slice(0, 2)] : [])));
  if (sub === "rm") {
    const kind = verb === "network" ? "networks" : "volumes";
    if (!world[kind].some((one) => one.name === name)) die(verb === "network" ? "Error response from daemon: network " + name + " not found" : "Error response from daemon: get " + name + ": no such volume");
    world[kind] = world[kind].filter((one) => one.name !== name);
  } else if ((verb === "network" || verb === "volume") && sub === "create") { if (verb === "network" || !world.volumes.some((one) => one.name === name)) world[verb + "s"].push({ name, labels }); }
  else if (verb === "rm") { need(name); world.containers = world.containers.filter((one) => one !== find(name)); }
  else if (verb === "unpause") { const one = need(name); if (one.status !== "paused") die("Error response from daemon: Container " + name + " is not paused"); one.status = "running"; }
  else if (verb === "start") { const one = need(name); if (one.status === "paused") die("Error response from daemon: cannot start a paused container, try unpause instead"); one.status = "running"; delete one.boot; }
  else if (verb === "restart") { const one = need(name); one.status = "running"; delete one.known; delete one.boot; }
  else if (verb === "create") {
    const text = args.includes("--label-file") ? readFileSync(args[args.indexOf("--label-file") + 1], "utf8") : "";
    const own = Object.fromEntries(text.split("\\n").filter(Boolean).map((line) => line.split(/=(.*)/s).slice(0, 2)));
    world.containers.push({ name: args[args.indexOf("--name") + 1], status: "created", labels: { ...labels, ...own }, made: false, address: args[args.indexOf("--ip") + 1] });
  }
  save();
}
`;

const k3d = (folder: string) => `#!${process.execPath}
const { readFileSync, renameSync, writeFileSync } = require("node:fs");
const file = ${JSON.stringify(join(folder, "world.json"))};
const world = JSON.parse(readFileSync(file, "utf8"));
if (process.argv[2] === "--version") { console.log("k3d version v5.8.3"); return; }
const config = require(${JSON.stringify(join(root, "node_modules", "yaml"))}).parse(readFileSync(0, "utf8"));
if (world.k3d) { console.error(world.k3d.says); process.exit(world.k3d.exitCode); }
const name = config.metadata.name;
const own = Object.fromEntries(config.options.runtime.labels.map(({ label }) => label.split(/=(.*)/s).slice(0, 2)));
for (let index = 0; index < config.servers; index++)
  world.containers.push({
    name: "k3d-" + name + "-server-" + index, status: "running", made: false, image: config.image, address: "172.28.0." + (index + 2),
    labels: { app: "k3d", "k3d.cluster": name, "k3d.role": "server", "k3d.server.loadbalancer": "", ...own },
  });
writeFileSync(file + ".new", JSON.stringify(world));
renameSync(file + ".new", file);
`;

/** Makes the programs; `remove` takes them away. */
export async function fakeDocker(): Promise<FakeDocker> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-fake-docker-"));
  const worldFile = join(folder, "world.json");
  const world = async (): Promise<World> => JSON.parse(await readFile(worldFile, "utf8")) as World;
  const empty: World = { containers: [], networks: [], volumes: [] };
  await writeFile(worldFile, JSON.stringify(empty));
  for (const [name, text] of [
    ["docker", program(folder)],
    ["k3d", k3d(folder)],
  ] as const) {
    await writeFile(join(folder, name), text);
    await chmod(join(folder, name), 0o755);
  }
  return {
    bin: folder,
    set: async (changes) => {
      await writeFile(worldFile, JSON.stringify({ ...empty, ...changes }));
      await rm(join(folder, "changes"), { force: true });
    },
    world,
    changes: async () =>
      (await readFile(join(folder, "changes"), "utf8").catch(() => "")).split("\n").filter(Boolean),
    within: async (work) => {
      const { PATH } = process.env;
      process.env.PATH = `${folder}${delimiter}${PATH}`;
      try {
        return await work();
      } finally {
        process.env.PATH = PATH;
      }
    },
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}
