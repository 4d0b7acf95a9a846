import { join } from "node:path";
import { Command } from "commander";
import { refusal } from "../../stacks/lib/errors.ts";
import { exists } from "../../stacks/lib/files.ts";
import { labId, refuseCopy } from "../../stacks/lib/lab-id.ts";
import { labDir, root } from "../../stacks/lib/paths.ts";
import { programOf, readStackFile, stackFile } from "../../stacks/model/config.ts";
import { haproxyConfig, traefikOf } from "../../stacks/model/load-balancer.ts";
import { readServerSecrets } from "../../stacks/model/server-secrets.ts";

export const command = new Command("config")
  .argument("<stack>", "stack of machines")
  .option("--secrets", "instead, print the secret part of the K3s configuration, if any")
  .action(async (stack: string, { secrets }: { secrets?: true }) => {
    const config = programOf(stack) === "cluster" ? await readStackFile(stack as "cluster", root) : undefined;
    if (config === undefined || config.provider === "hosts")
      throw refusal(
        `${stackFile(stack)}: Vagrant creates no machines for this stack${config ? ", which has existing hosts" : ""}. Set LAB_STACK to another stack, or use pulumi.`,
      );
    // The Vagrantfile marks machines with the id. An incomplete one is reported.
    if (!(await exists(join(labDir, "id")))) await labId();
    // A copied checkout contains Vagrant's state too.
    await refuseCopy();
    process.stdout.write(
      secrets
        ? ((await readServerSecrets(config.k3s.serverSecrets, stackFile(stack), root)) ?? "")
        : JSON.stringify({
            ...config,
            traefik: traefikOf(config),
            ...(config.loadBalancer ? { haproxy: haproxyConfig(config) } : {}),
          }),
    );
  });
