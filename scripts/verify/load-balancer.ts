import { once } from "node:events";
import { connect } from "node:net";
import { execa } from "execa";
import { root } from "../../stacks/lib/paths.ts";
import { servedAt } from "../../stacks/model/cluster-plan.ts";
import type { LoadBalancerMachine } from "../../stacks/model/config.ts";
import { type Backends, balancedPorts, statsSocket } from "../../stacks/model/load-balancer.ts";
import { sshTo } from "../../stacks/model/ssh-config.ts";
import type { CheckSpec } from "./check.ts";

/** Sources for the checks of a load balancer. */
export interface BalancerSources {
  /** HAProxy's statistics, as CSV, from its machine. */
  readonly haproxy: (alias: string) => Promise<string>;
  /** Opens and closes a connection from this computer. */
  readonly connects: (address: string, port: number) => Promise<void>;
}

/** @param timeout in milliseconds. */
export const realBalancer = (timeout: number): BalancerSources => ({
  haproxy: async (alias) => {
    const command = ["sudo", "-n", "curl", "--silent", "--show-error", "--unix-socket", statsSocket];
    const { failed, stdout, stderr, shortMessage } = await execa(
      "ssh",
      [...sshTo(root, alias), ...command, "'http://haproxy/;csv'"],
      { env: { K3S_LAB_ROOT: root }, reject: false, timeout, stdin: "ignore" },
    );
    if (failed) throw new Error(stderr?.trim().split("\n").at(-1) || shortMessage);
    return stdout;
  },
  connects: async (address, port) => {
    const socket = connect(port, address);
    try {
      await once(socket, "connect", { signal: AbortSignal.timeout(timeout) });
    } finally {
      socket.destroy();
    }
  },
});

/** The state of each machine behind one of HAProxy's sections, by the machine's name, such as `UP` or `DOWN L4TOUT`. */
export function statesIn(csv: string, section: string): ReadonlyMap<string, string> {
  const [head = "", ...lines] = csv.replace(/^# /m, "").split("\n");
  const columns = head.split(",");
  const value = (cells: readonly string[], column: string) => cells[columns.indexOf(column)] ?? "";
  return new Map(
    lines
      .map((line) => line.split(","))
      .filter((cells) => value(cells, "pxname") === section)
      .filter((cells) => !["FRONTEND", "BACKEND"].includes(value(cells, "svname")))
      .map((cells) => {
        const state = value(cells, "status");
        return [
          value(cells, "svname"),
          state === "UP" ? state : `${state} ${value(cells, "check_status")}`.trim(),
        ];
      }),
  );
}

/** Checks that every port of a load balancer accepts connections, and that all its backends answer. */
export const checkLoadBalancer = (
  machine: LoadBalancerMachine,
  alias: string,
  backends: Backends,
  { haproxy, connects }: BalancerSources,
): CheckSpec[] =>
  backends.map(([section, machines]): CheckSpec => {
    const port = balancedPorts[section];
    const inOrder = (names: readonly string[]) => [...names].sort().join(", ");
    return {
      id: `${machine.name}/port-${port}`,
      title: `${machine.name}: port ${port} leads to every ${section === "api" ? "server" : "node"}`,
      expected: inOrder(machines.map(({ name }) => name)),
      actual: async () => {
        await connects(servedAt(machine), port);
        const states = [...statesIn(await haproxy(alias), section)];
        const isUp = (state: string) => /^UP\b/.test(state);
        const down = states.filter(([, state]) => !isUp(state)).map(([name, state]) => `${name}: ${state}`);
        return [inOrder(states.filter(([, state]) => isUp(state)).map(([name]) => name)), ...down]
          .filter(Boolean)
          .join("; ");
      },
      hint: `HAProxy leaves out what does not answer: see the checks on that node. Its log: \`ssh -F .lab/ssh/${alias}/config ${alias} sudo journalctl --unit k3s-lab-load-balancer --lines 50\`. If it was changed since the last \`scripts/lab up\`, that repairs it.`,
    };
  });
