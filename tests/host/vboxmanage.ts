import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";

/**
 * Plays `VBoxManage` for Vagrant's own VirtualBox driver (vagrant 2.3.4, plugins/providers/virtualbox/driver): keeps
 * virtual machines and host-only interfaces in a file, and writes down every call that changes something. No program is
 * started and no interface is made.
 *
 *   node vboxmanage.ts FOLDER VERSION ARGUMENTS...
 */
const [folder = "", version = "", ...args] = process.argv.slice(2);

interface Machine {
  readonly id: string;
  name: string;
  state: "poweroff" | "running" | "paused";
  /** What `modifyvm` set, by option. */
  readonly settings: Record<string, string>;
  readonly forwardings: string[];
  readonly snapshots: string[];
  readonly extraData: Record<string, string>;
}

interface State {
  machines: Machine[];
  interfaces: { name: string; ip: string; netmask: string }[];
  made: number;
}

const stateFile = join(folder, "state.json");
const state = read();
const [verb = "", ...rest] = args;

if (!isQuery()) writeFileSync(join(folder, "calls"), `${JSON.stringify(args)}\n`, { flag: "a" });
const answer = answerTo();
if (!isQuery()) {
  // At once: whoever looks meanwhile, as a Vagrant that gives up may, sees all or nothing of it.
  writeFileSync(`${stateFile}.${process.pid}`, JSON.stringify(state));
  renameSync(`${stateFile}.${process.pid}`, stateFile);
}
if (answer) process.stdout.write(answer.endsWith("\n") ? answer : `${answer}\n`);

function isQuery(): boolean {
  const isDryRun = verb === "import" && rest.includes("-n");
  const isList = verb === "snapshot" && rest[1] === "list";
  return (
    ["--version", "list", "showvminfo", "guestproperty", "getextradata"].includes(verb) || isDryRun || isList
  );
}

function answerTo(): string {
  if (verb === "--version") return `${version}r163906`;
  if (verb === "list") return list(rest[0] ?? "");
  if (verb === "import") return importBox();
  if (verb === "showvminfo") return describe(machine(rest[0]));
  if (verb === "snapshot") return snapshot();
  if (verb === "clonevm") {
    machine(rest[0]);
    return add(option("--name"));
  }
  if (verb === "modifyvm") return modify(machine(rest[0]), rest.slice(1));
  if (verb === "setextradata") {
    machine(rest[0]).extraData[rest[1] ?? ""] = rest[2] ?? "";
    return "";
  }
  if (verb === "getextradata")
    return Object.entries(machine(rest[0]).extraData)
      .map(([key, value]) => `Key: ${key}, Value: ${value}`)
      .join("\n");
  if (verb === "controlvm" && rest[1] === "pause") return setState(machine(rest[0]), "paused") && "";
  if (verb === "controlvm" && rest[1] === "resume") return setState(machine(rest[0]), "running") && "";
  if (verb === "startvm") {
    const { name } = setState(machine(rest[0]), "running");
    return `VM "${name}" has been successfully started.`;
  }
  if (verb === "controlvm" && rest[1] === "poweroff") return setState(machine(rest[0]), "poweroff") && "";
  if (verb === "unregistervm") {
    const { id } = machine(rest[0]);
    state.machines = state.machines.filter((one) => one.id !== id);
    return "";
  }
  if (verb === "hostonlyif") return hostOnlyInterface();
  if (verb === "dhcpserver") return fail("VBOX_E_OBJECT_NOT_FOUND");
  return fail(`this stand-in does not know: ${args.join(" ")}`);
}

function list(what: string): string {
  const blocks: Record<string, () => readonly string[]> = {
    vms: () => state.machines.map(({ name, id }) => `"${name}" {${id}}`),
    hostonlyifs: () =>
      state.interfaces.map(
        ({ name, ip, netmask }) =>
          `Name:            ${name}\nIPAddress:       ${ip}\nNetworkMask:     ${netmask}\nIPV6Address:     \nStatus:          Up\n`,
      ),
    bridgedifs: () => [
      "Name:            eth9\nIPAddress:       198.51.100.7\nNetworkMask:     255.255.255.0\nStatus:          Up\n",
    ],
    systemproperties: () => [`Default machine folder:          ${join(folder, "machines")}`],
    dhcpservers: () => [],
    hostinfo: () => ["Host Information:"],
  };
  return (blocks[what] ?? (() => fail(`list ${what}`)))().join("\n");
}

function importBox(): string {
  const suggested = "box";
  if (rest.includes("-n"))
    return [
      ` 1: Suggested VM name "${suggested}"`,
      ` 5: Suggested VM settings file name "${join(folder, "machines", suggested, "box.vbox")}"`,
      `10: Hard disk image: source image=disk.vmdk, target path=${join(folder, "machines", suggested, "disk.vmdk")}, controller=7;channel=0`,
    ].join("\n");
  return basename(rest[0] ?? "") === "box.ovf" ? add(option("--vmname")) : fail("no box.ovf");
}

function snapshot(): string {
  const { snapshots } = machine(rest[0]);
  if (rest[1] === "take") snapshots.push(rest[2] ?? "");
  else if (snapshots.length === 0) fail("This machine does not have any snapshots");
  return rest[1] === "list" ? snapshots.map((name) => `SnapshotName="${name}"`).join("\n") : "";
}

/** Options come in pairs; a forwarding is added or taken away, anything else is set. */
function modify(one: Machine, options: readonly string[]): string {
  for (let index = 0; index < options.length; index += 2) {
    const [key = "", value = ""] = options.slice(index);
    if (key === "--name") one.name = value;
    else if (!key.startsWith("--natpf")) one.settings[key.replace(/^--/, "")] = value;
    else if (value !== "delete") one.forwardings.push(value);
    else {
      const name = options[index + 2];
      one.forwardings.splice(
        one.forwardings.findIndex((text) => text.startsWith(`${name},`)),
        1,
      );
      index += 1;
    }
  }
  return "";
}

function hostOnlyInterface(): string {
  const [action, name = ""] = rest;
  if (action === "create") {
    const number = state.interfaces.length;
    const made = `vboxnet${number}`;
    state.interfaces.push({ name: made, ip: `192.168.${56 + number}.1`, netmask: "255.255.255.0" });
    return `Interface '${made}' was successfully created`;
  }
  const found = state.interfaces.find((one) => one.name === name) ?? fail(`no interface ${name}`);
  if (action === "ipconfig") Object.assign(found, { ip: option("--ip"), netmask: option("--netmask") });
  else if (action === "remove") state.interfaces = state.interfaces.filter((one) => one !== found);
  else fail(`hostonlyif ${action}`);
  return "";
}

/** As `showvminfo --machinereadable` tells it, as far as Vagrant and the lab read it. */
function describe({ id, name, state: vmState, settings, forwardings }: Machine): string {
  const nics = [1, 2, 3].flatMap((slot) => {
    const type = settings[`nic${slot}`] ?? (slot === 1 ? "nat" : "none");
    const adapter = settings[`hostonlyadapter${slot}`];
    return [
      ...(type === "hostonly" && adapter ? [`hostonlyadapter${slot}="${adapter}"`] : []),
      ...(type === "none" ? [] : [`macaddress${slot}="08002700000${slot}"`]),
      `nic${slot}="${type}"`,
      ...(slot === 1 ? forwardings.map((text, index) => `Forwarding(${index})="${text}"`) : []),
    ];
  });
  const size = [`memory=${settings.memory ?? 512}`, `cpus=${settings.cpus ?? 1}`];
  return [`name="${name}"`, `UUID="${id}"`, ...size, ...nics, `VMState="${vmState}"`].join("\n");
}

function add(name: string): string {
  state.made += 1;
  const id = `00000000-0000-4000-8000-${String(state.made).padStart(12, "0")}`;
  state.machines.push({
    id,
    name,
    state: "poweroff",
    settings: {},
    forwardings: [],
    snapshots: [],
    extraData: {},
  });
  return "";
}

function setState(one: Machine, to: Machine["state"]): Machine {
  one.state = to;
  return one;
}

function machine(id = ""): Machine {
  const found = state.machines.find((one) => one.id === id || one.name === id);
  return found ?? fail("VBOX_E_OBJECT_NOT_FOUND: Could not find a registered machine");
}

function option(name: string): string {
  return rest[rest.indexOf(name) + 1] ?? fail(`${name} is missing`);
}

function fail(message: string): never {
  process.stderr.write(`VBoxManage: error: ${message}\n`);
  process.exit(1);
}

function read(): State {
  mkdirSync(join(folder, "machines"), { recursive: true });
  if (!existsSync(stateFile)) return { machines: [], interfaces: [], made: 0 };
  return JSON.parse(readFileSync(stateFile, "utf8")) as State;
}
