import { createHash } from "node:crypto";
import { dirname } from "node:path";
import { LabError } from "../lib/errors.ts";
import {
  type Container,
  copyOut,
  couldStart,
  docker,
  dockerError,
  isAbsent,
  isRunning,
  tryDocker,
} from "./docker.ts";

/**
 * In a node's data: its creation is complete, for a new cluster's server that of all servers. It lasts as long as the
 * container.
 */
const madeFile = "/var/lib/rancher/k3s/k3s-lab-made";
/** On a node's tmpfs: everything that must follow a start was done. A restart removes it. */
const bootFile = "/run/k3s-lab-boot";

const printCertificate =
  "sed -n 's/.*client-certificate-data: */certificate /p' /output/kubeconfig.yaml 2>/dev/null";

/** A folder that cannot be read, as on a failing disk, does not prove that the mark is missing. */
const printMarks = `[ -e ${madeFile} ] && echo made || case "$(ls ${dirname(madeFile)} 2>&1 >/dev/null)" in "" | *"No such file"*) echo unmade ;; esac
${printCertificate}
cat ${bootFile} 2>/dev/null
echo
echo end`;

/** A label of a server that was recreated on its own, in place of a lost one. */
export const aloneLabel = "k3s-lab.made";

export interface Marks {
  /** Whether its creation is complete; after an interrupted run it is not. */
  readonly isMade: boolean;
  /** The name of the last start; undefined if the node was started since, or does not run. */
  readonly boot: string | undefined;
  /** SHA-256 of the client certificate in a server's kubeconfig; undefined where the node does not run. */
  readonly certificate?: string;
}

/** Reads a node's marks, whatever its state. */
export async function readMarks(container: Container): Promise<Marks> {
  const { name } = container;
  if (isRunning(container)) {
    const result = await tryDocker(["exec", name, "sh", "-c", printMarks]);
    if (!result.failed) {
      const lines = result.stdout.split("\n");
      // Docker may lose a part of the output silently, and an incomplete node is removed.
      if (!lines.some((line) => /^(un)?made$/.test(line)) || !lines.includes("end"))
        throw new LabError(
          `The container ${name} did not report whether its creation was completed. Nothing was changed. Run the same command again; if this persists, see \`docker exec ${name} ls ${dirname(madeFile)}\`.`,
        );
      const [, certificate] = /^certificate (\S+)$/m.exec(result.stdout) ?? [];
      return {
        isMade: lines.includes("made"),
        boot: lines.find((line) => !/^(|(un)?made|end|certificate .*)$/.test(line)),
        ...(certificate && { certificate: createHash("sha256").update(certificate).digest("hex") }),
      };
    }
    // It may have ended since it was inspected.
    if (!isAbsent(result) && !/is not running|is paused|is restarting/.test(result.stderr))
      throw dockerError(result, `docker exec ${name}`);
  }
  return { isMade: await copyOut(name, madeFile, "-"), boot: undefined };
}

export type MarkedNode = Container & Marks;

/** Servers and agents that could be started. */
export const markedNodes = (containers: readonly Container[]): Promise<MarkedNode[]> =>
  Promise.all(
    containers
      .filter((one) => /^(server|agent)$/.test(one.role ?? "") && couldStart(one))
      .map(async (one) => ({ ...one, ...(await readMarks(one)) })),
  );

/**
 * The servers of a cluster whose creation is complete. Servers that were created together are marked one after the other:
 * the mark of any of them counts for all.
 */
export function completeServers(servers: readonly MarkedNode[]): MarkedNode[] {
  const isOneMade = servers.some(({ isMade }) => isMade);
  return servers.filter(({ labels, isMade }) => isMade || (isOneMade && labels[aloneLabel] === undefined));
}

/** Marks a node's creation as complete. */
export const markMade = (name: string): Promise<string> => docker(["exec", name, "touch", madeFile]);

/** Marks a node as started. @param boot names the start; no secret. */
export const markBoot = (name: string, boot: string): Promise<string> =>
  docker(["exec", name, "sh", "-c", `printf %s "$1" >${bootFile}`, "sh", boot]);
