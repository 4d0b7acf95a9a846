import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { execa } from "execa";
import pWaitFor from "p-wait-for";
import { type ImageSpec, sortedEntries } from "../../scripts/toolchain/images/archive.ts";
import { postgresImageSpec } from "../../scripts/toolchain/images/postgres.ts";
import { freePort } from "../faults/fake-docker.ts";

/** What can be written in a pod of the database. */
const volumes = ["/var/lib/postgresql", "/run/postgresql", "/tmp"];
/** What a cluster puts into it: a Secret, and a ConfigMap once the database was made. */
const secrets = "/etc/postgres-secret";
const made = "/etc/postgres-made";
/** Addresses of pods that are apart. */
const most = 8;
const clusterFiles = ["/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"];

/**
 * Pods of the database for tests, without Docker: the image's own files as a read-only root of processes, which are its
 * unprivileged user in a user namespace. Pods share the network, each has an address of 127.0.0.0/8.
 */
export class PostgresPods {
  /** Names and addresses, as the cluster's DNS has them. Any other name is absent. */
  readonly hosts = new Map<string, string>();
  /** What a cluster puts into /etc/resolv.conf. Default: nothing. */
  resolvConf = "";
  readonly port: number;
  readonly folder: string;
  readonly image: string;
  readonly #running = new Set<PostgresPod>();
  /** The end of the first pod's address. */
  #first = 2;
  #apart = 0;

  private constructor(folder: string, image: string, port: number) {
    this.folder = folder;
    this.image = image;
    this.port = port;
  }

  /** @returns a sentence where this computer cannot have them. */
  static async prepare(): Promise<PostgresPods | string> {
    const namespaces = await execa("unshare", [...own(), "unshare", "--user", "--map-user=65532", "true"], {
      reject: false,
    });
    if (namespaces.failed)
      return `this computer lets no process have namespaces of its own: ${namespaces.stderr}`;
    let image: ImageSpec;
    try {
      image = await postgresImageSpec(() => {});
    } catch (error) {
      return (error as Error).message;
    }
    const folder = await mkdtemp(join(tmpdir(), "postgres-pods-"));
    await layOut(image, join(folder, "root"));
    return new PostgresPods(folder, join(folder, "root"), await freePort());
  }

  /** Others of the same image, which know nothing of these: a test may have its own while another runs. */
  async apart(): Promise<PostgresPods> {
    const folder = await mkdtemp(join(this.folder, "apart-"));
    const others = new PostgresPods(folder, this.image, this.port);
    this.#apart += 1;
    others.#first = this.#first + this.#apart * most;
    return others;
  }

  /** Removes a pod, its name and its volumes. */
  async remove(pod: PostgresPod): Promise<void> {
    await pod.kill();
    this.hosts.delete(pod.name);
    await rm(pod.path("/"), { recursive: true });
  }

  /** A pod that does not run yet. Its volume and its passwords are there. */
  async pod(name: string): Promise<PostgresPod> {
    const [a, b] = [process.pid >> 8, process.pid].map((number) => number % 250);
    const address = `127.${(a ?? 0) + 1}.${(b ?? 0) + 1}.${this.hosts.size + this.#first}`;
    const pod = new PostgresPod(this, name, address, this.#running);
    for (const path of [...volumes, secrets, made]) await mkdir(pod.path(path), { recursive: true });
    await pod.setPasswords("secret", "copying");
    return pod;
  }

  async end(): Promise<void> {
    await Promise.all([...this.#running].map((pod) => pod.kill()));
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Root needs no user namespace to mount. */
const own = (): string[] => ["--mount", ...(process.getuid?.() === 0 ? [] : ["--map-root-user"])];

/** One pod of the database. */
export class PostgresPod {
  readonly name: string;
  readonly address: string;
  /** What it has said since it was started last. */
  said = "";
  readonly #pods: PostgresPods;
  readonly #running: Set<PostgresPod>;
  #process: ChildProcess | undefined;
  #ended: Promise<number | null> = Promise.resolve(null);

  constructor(pods: PostgresPods, name: string, address: string, running: Set<PostgresPod>) {
    this.name = name;
    this.address = address;
    this.#pods = pods;
    this.#running = running;
    pods.hosts.set(name, address);
  }

  /** Where a path of the pod's own is on this computer. */
  path(inside: string): string {
    return join(this.#pods.folder, "pods", this.name, inside);
  }

  async setPasswords(password: string, replication: string): Promise<void> {
    await writeFile(join(this.path(secrets), "password"), `${password}\n`);
    await writeFile(join(this.path(secrets), "replication-password"), replication);
  }

  /** What the cluster knows of a database that was made, from then on. */
  async noteMade(replicas: number): Promise<void> {
    await writeFile(join(this.path(made), "replicas"), String(replicas));
  }

  /** Starts the container; what it says is in `said`. */
  async start(env: Readonly<Record<string, string>> = {}): Promise<void> {
    this.said = "";
    const command = this.#inside(["postgres-entry", "server"], env);
    const started = spawn("unshare", command.args, {
      // A group of its own, which can be killed at once.
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
      env: command.env,
    });
    this.#process = started;
    this.#running.add(this);
    for (const stream of [started.stdout, started.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => {
        this.said += text;
      });
    this.#ended = once(started, "close").then(([code]) => code as number | null);
  }

  async startReady(env: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.start(env);
    // Each question starts a dozen programs.
    await this.until(() => this.isReady(), "is ready", 300);
  }

  async isReady(): Promise<boolean> {
    return (await this.exec(["postgres-entry", "ready"])).exitCode === 0;
  }

  /** Waits, as long as the container runs. @throws Error with what it said. */
  async until(condition: () => boolean | Promise<boolean>, what: string, interval = 100): Promise<void> {
    const ended = this.#ended.then((code) => {
      throw new Error(`${this.name} ended with ${code} before it ${what}:\n${this.said}`);
    });
    const over = new AbortController();
    const wait = { interval, timeout: 120_000, signal: over.signal };
    const met = pWaitFor(condition, wait).catch((cause: unknown) => {
      throw new Error(`${this.name} not in 2 minutes: ${what}\n${this.said}`, { cause });
    });
    await Promise.race([met, ended]).finally(() => over.abort());
    ended.catch(() => {});
  }

  /** Ends it as a cluster does. @returns its exit code. */
  async stop(): Promise<number | null> {
    this.#process?.kill("SIGTERM");
    return await this.ended();
  }

  /** Waits for its end. @returns its exit code. @throws Error where it goes on. */
  async ended(): Promise<number | null> {
    const late = new AbortController();
    const goesOn = pause(30_000, undefined, { signal: late.signal }).then(() => {
      throw new Error(`${this.name} has not ended within 30 s:\n${this.said}`);
    });
    goesOn.catch(() => {});
    const code = await Promise.race([this.#ended, goesOn]).finally(() => late.abort());
    this.#running.delete(this);
    return code;
  }

  /** Ends all its processes at once, as a lost node does. */
  async kill(): Promise<void> {
    const { pid, exitCode, signalCode } = this.#process ?? {};
    if (pid !== undefined && exitCode === null && signalCode === null) process.kill(-pid, "SIGKILL");
    await this.ended();
  }

  /** Runs a command in the pod, as `kubectl exec` does. */
  async exec(
    command: readonly string[],
    env: Readonly<Record<string, string>> = {},
    input: Uint8Array = new Uint8Array(),
  ) {
    const inside = this.#inside(command, env);
    const { exitCode, stdout, stderr } = await execa("unshare", inside.args, {
      reject: false,
      input,
      extendEnv: false,
      env: inside.env,
    });
    return { exitCode, stdout, stderr };
  }

  /** The same with files at its ends, as the lab does by kubectl. */
  async run(
    command: readonly string[],
    { input = "", inputFile, outputFile }: Readonly<Record<string, string>> = {},
  ) {
    const inside = this.#inside(command);
    const { exitCode, stdout, stderr } = await execa("unshare", inside.args, {
      ...(inputFile === undefined ? { input } : { inputFile }),
      ...(outputFile === undefined ? {} : { stdout: { file: outputFile } }),
      ...{ reject: false, extendEnv: false, env: inside.env },
    });
    return { exitCode, stdout: String(stdout ?? ""), stderr: String(stderr ?? "") };
  }

  /** Asks it over the network. @throws Error with psql's words. */
  async sql(
    text: string,
    { user = "guestbook", password = "secret", database = "guestbook" } = {},
  ): Promise<string> {
    const ask = [
      "psql",
      "-XqAtw",
      "-v",
      "ON_ERROR_STOP=1",
      "-h",
      this.address,
      "-U",
      user,
      "-d",
      database,
      "-c",
      text,
    ];
    const { exitCode, stdout, stderr } = await this.exec(ask, { PGPASSWORD: password });
    if (exitCode !== 0) throw new Error(stderr);
    return stdout;
  }

  /** Asks it by its socket as the superuser. */
  async admin(text: string): Promise<string> {
    const ask = ["psql", "-XqAtw", "-h", "/run/postgresql", "-U", "postgres", "-d", "postgres", "-c", text];
    return (await this.exec(ask)).stdout;
  }

  /** What runs a command in the pod's root. */
  #inside(command: readonly string[], env: Readonly<Record<string, string>> = {}) {
    const image = this.#pods.image;
    const hosts = [...this.#pods.hosts].map(([name, address]) => `${address} ${name}\n`).join("");
    const mounts = [
      'mount --bind "$IMAGE" "$IMAGE"',
      'cd "$IMAGE"',
      "mount --rbind /dev dev",
      ...[...volumes, secrets, made].map((path) => `mount --bind "$POD${path}" ".${path}"`),
      'printf %s "$HOSTS" >"$POD/hosts.$$" && mount --bind "$POD/hosts.$$" etc/hosts && rm "$POD/hosts.$$"',
      // No DNS server is asked: a name that is not in the list is absent.
      'echo "hosts: files" >"$POD/nss.$$" && mount --bind "$POD/nss.$$" etc/nsswitch.conf && rm "$POD/nss.$$"',
      'printf %s "$RESOLV" >"$POD/dns.$$" && mount --bind "$POD/dns.$$" etc/resolv.conf && rm "$POD/dns.$$"',
      'mount -o remount,ro,bind "$IMAGE"',
      "unset IMAGE POD HOSTS RESOLV",
      'exec unshare --user --map-user=65532 --map-group=65532 --root=. "$@"',
    ];
    return {
      args: [...own(), "sh", "-c", mounts.join(" && "), "sh", ...command],
      env: {
        PATH: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        IMAGE: image,
        POD: this.path("/").replace(/\/$/, ""),
        HOSTS: hosts,
        RESOLV: this.#pods.resolvConf,
        HOSTNAME: this.name,
        PGPORT: String(this.#pods.port),
        LISTEN: this.address,
        PRIMARY_HOST: "db-0",
        PEER_HOSTS: "db-0 db-1",
        ...env,
      },
    };
  }
}

async function layOut(image: ImageSpec, folder: string): Promise<void> {
  for (const layer of image.layers)
    for (const [path, entry] of sortedEntries(layer)) {
      const target = join(folder, path);
      if ("directory" in entry) {
        await mkdir(target, { recursive: true, ...(entry.mode && { mode: entry.mode }) });
        continue;
      }
      await mkdir(dirname(target), { recursive: true });
      // What layers have in common comes more than once.
      await rm(target, { force: true });
      if ("symlink" in entry) await symlink(entry.symlink, target);
      else if ("content" in entry) await writeFile(target, entry.content);
      else {
        await copyFile(entry.source, target);
        if (entry.mode !== undefined) await chmod(target, entry.mode);
      }
    }
  // What a container runtime makes.
  await mkdir(join(folder, "dev"), { recursive: true });
  for (const file of clusterFiles) await writeFile(join(folder, file), "", { flag: "a" });
}
