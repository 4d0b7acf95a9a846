import { words } from "../stacks/lib/words.ts";

/**
 * Variables of the user's shell that would make Pulumi, Vagrant, Ansible, K3s, k3d or Node do something other than the stack files
 * say, or do it elsewhere. The lab sets those that it needs itself; the user's have no effect. What stays the user's:
 * PULUMI_K8S_DELETE_UNREACHABLE, by which a person says that a cluster is gone for good, DOCKER_HOST, DOCKER_CONTEXT and DOCKER_SOCK, VAGRANT_HOME, proxies, K3S_LAB_CACHE, LAB_TOOLS_WAY.
 */
const inherited: readonly RegExp[] = [
  // Empty is not unset here: an empty PULUMI_CONFIG_PASSPHRASE is a passphrase. PULUMI_OPTION_… is any flag of its CLI.
  /^PULUMI_(?!(ERROR_OUTPUT_STRING|K8S_DELETE_UNREACHABLE)$)/,
  /^VAGRANT_(?!(HOME|LOG|SERVER_URL|SERVER_ACCESS_TOKEN_BY_URL|CLOUD_TOKEN)$)/,
  /^(INSTALL_)?K3S_(?!LAB_(CACHE|FAULT_TABLE)$)/,
  /^K3D_/,
  // ANSIBLE_RUN_TAGS, for one, skips all tasks, which counts as success.
  /^ANSIBLE_/,
  /^LAB_(?!(TOOLS_WAY|DEBUG)$)/,
  /^(NODE_OPTIONS|LIBVIRT_DEFAULT_URI|DOCKER_DEFAULT_PLATFORM|DOCKER_BUILDKIT)$/,
  // bash sources BASH_ENV before each script, and with CDPATH `cd` prints the directory.
  /^(BASH_ENV|CDPATH)$/,
  // Names that the lab's own scripts use.
  /^(NODE_(NAME|IP|ROLE|INTERFACE)|SERVERS|TOKEN_FILE|CLUSTER_ID|INVENTORY|TRAEFIK)$/,
];

/** Removes them from an environment. @returns their names. */
export function dropInheritedVariables(environment: NodeJS.ProcessEnv): string[] {
  const names = Object.keys(environment)
    .filter((name) => inherited.some((pattern) => pattern.test(name)))
    .sort();
  for (const name of names) delete environment[name];
  return names;
}

/** The variables that this process dropped at startup: `lab env` tells a shell to unset them too. */
export const droppedVariables: string[] = [];

/** Variables that must be unset in a shell for plain `pulumi`, `vagrant` and `kubectl`. */
export const variablesToUnset = words(`
  PULUMI_CONFIG_PASSPHRASE PULUMI_BACKEND_URL PULUMI_STACK PULUMI_ORG
  VAGRANT_DEFAULT_PROVIDER VAGRANT_VAGRANTFILE NODE_OPTIONS`);

/** Hosts to reach without a proxy: this computer, and the lab's own networks. */
const direct = ["localhost", "127.0.0.1", "::1"];

/**
 * `NO_PROXY` and `no_proxy` for the lab's programs; empty where no proxy is set.
 * @param networks of the lab's machines: addresses, and networks such as 192.168.42.0/24, which Go understands.
 */
export function withoutProxy(
  environment: NodeJS.ProcessEnv,
  networks: readonly string[],
): Record<string, string> {
  const isSet = Object.keys(environment).some(
    (name) => /^(https?|all|grpc)_proxy$/i.test(name) && environment[name],
  );
  if (!isSet) return {};
  const asked = `${environment.NO_PROXY ?? ""},${environment.no_proxy ?? ""}`
    .split(",")
    .map((one) => one.trim());
  const all = [...new Set([...asked.filter(Boolean), ...direct, ...networks])].join(",");
  return { NO_PROXY: all, no_proxy: all };
}
