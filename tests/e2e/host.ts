import { execa } from "execa";

/** Asks the lab over HTTP as `curl -H "Host: …" http://…/` does, with `Accept: application/json`. */
export async function ask(
  address: string,
  host: string,
): Promise<{ app: string; pod: string; version: string; namespace: string }> {
  const { stdout } = await execa("curl", [
    ...["--silent", "--show-error", "--fail", "--max-time", "10"],
    ...["--header", `Host: ${host}`, "--header", "Accept: application/json", `http://${address}/`],
  ]);
  return JSON.parse(stdout) as Awaited<ReturnType<typeof ask>>;
}

/** Bridges, routes, rules, containers' processes: everything that a lab makes on the host. */
export async function hostState(): Promise<string> {
  const commands = [
    ["ip", "-brief", "link", "show", "type", "bridge"],
    ["ip", "-brief", "link", "show", "type", "veth"],
    ["ip", "-4", "route", "show"],
    ["iptables", "--list-rules"],
    ["iptables", "--table", "nat", "--list-rules"],
  ] as const;
  const answers = await Promise.all(commands.map(([file, ...args]) => execa(file, args, { reject: false })));
  const { stdout: processes } = await execa("ps", ["-eo", "stat=,comm="]);
  // A process that has ended and only waits to be reaped (Z) is not running.
  const ofLab = processes
    .split("\n")
    .map((line) => /^[^Z]\S* +((dockerd|containerd|k3s|k3d|pulumi|vagrant|ruby)\S*)/.exec(line)?.[1])
    .filter((name) => name !== undefined);
  return [
    ...answers.map(({ stdout, command }) => `$ ${command}\n${stdout ?? ""}`),
    ofLab.sort().join("\n"),
  ].join("\n");
}
