import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { LabError } from "../../../stacks/lib/errors.ts";
import type { Progress } from "../../../stacks/lib/progress.ts";
import { words } from "../../../stacks/lib/words.ts";
import type { ImageSpec, Layer } from "./archive.ts";
import { cachedArchive, imagesKey } from "./cache.ts";
import { mergedUsr, programLayer } from "./closure.ts";
import { unpackedPackages } from "./debian.ts";
import { busyboxLayer } from "./index.ts";
import type { ImageArchive } from "./web.ts";

const repository = "k3s-lab/postgres";

/** PostgreSQL's major version: no other can read its data. */
const major = 15;

/** Debian's packages with PostgreSQL and its libraries. The C library is this computer's. */
const packages = words(`
  busybox-static postgresql-${major} postgresql-client-${major}
  libaudit1 libcap-ng0 libcap2 libcom-err2 libffi8 libgcrypt20 libgmp10 libgnutls30 libgpg-error0 libgssapi-krb5-2
  libhogweed6 libicu72 libidn2-0 libk5crypto3 libkeyutils1 libkrb5-3 libkrb5support0 libldap-2.5-0 liblz4-1 liblzma5
  libnettle8 libp11-kit0 libpam0g libpq5 libreadline8 libsasl2-2 libssl3 libstdc++6 libsystemd0 libtasn1-6 libtinfo6
  libunistring2 libxml2 libzstd1 util-linux zlib1g`);

/** The programs that the entrypoint calls, and some for people in the pod. */
const programs = words(
  "initdb pg_basebackup pg_controldata pg_ctl pg_dump pg_isready pg_restore postgres psql",
);

/** Plug-ins that the server loads. Others, such as the JIT compiler of 100 MB, are left out. */
const modules = words("dict_snowball.so libpqwalreceiver.so plpgsql.so");

/** The server's other files. */
const shared = words(`
  errcodes.txt information_schema.sql pg_hba.conf.sample pg_ident.conf.sample postgres.bki postgresql.conf.sample
  snowball_create.sql sql_features.txt system_constraints.sql system_functions.sql system_views.sql
  extension/plpgsql.control extension/plpgsql--1.0.sql`);
const sharedFolders = ["timezonesets", "tsearch_data"];

/** Settings that a stack file cannot change. Memory fits a pod of 256 MB; a lost replica holds back at most 256 MB of log. */
const configuration = `unix_socket_directories = '/run/postgresql'
unix_socket_permissions = 0700
hba_file = '/etc/postgresql/pg_hba.conf'
ident_file = '/etc/postgresql/pg_ident.conf'
password_encryption = scram-sha-256
max_connections = 60
shared_buffers = 32MB
dynamic_shared_memory_type = mmap
max_parallel_workers_per_gather = 0
jit = off
wal_level = replica
hot_standby = on
max_wal_size = 256MB
max_slot_wal_keep_size = 256MB
wal_sender_timeout = 10s
wal_receiver_timeout = 10s
wal_retrieve_retry_interval = 1s
tcp_keepalives_idle = 30
idle_in_transaction_session_timeout = 60s
timezone = 'GMT'
log_timezone = 'GMT'
lc_messages = 'C'
`;

/** Over the network every user needs a password, and the superuser has none: it uses the socket, which only the pod has. */
const access = `local all all trust
host all postgres all reject
host replication replicator all scram-sha-256
host all all all scram-sha-256
`;

const otherwise = "Bring this stack up from a computer with Debian 12.";

/** PostgreSQL runs as this user, which owns no file of the image. */
const user = "65532:65532";

/**
 * The database's image: Debian's PostgreSQL and the script that creates, copies and serves a database. It runs with a
 * read-only root; only /var/lib/postgresql, /run/postgresql and /tmp must be writable. Its tag begins with PostgreSQL's
 * version and ends with a hash of all its files.
 */
export async function postgresImageSpec(progress: Progress): Promise<ImageSpec> {
  const root = await unpackedPackages(
    packages,
    progress,
    `The database's image is made from Debian 12's packages, but this computer has no apt. ${otherwise}`,
  ).catch((cause: unknown) => {
    // Other releases, and Ubuntu, have other versions.
    const isMissing = cause instanceof LabError && cause.message.includes("Unable to locate package");
    if (!isMissing) throw cause;
    throw new LabError(
      `The database's image is made from Debian 12's PostgreSQL ${major}, which apt does not have here. ${otherwise}`,
      { cause },
    );
  });
  const image: ImageSpec = {
    ref: repository,
    layers: [
      {
        ...mergedUsr,
        ...(await busyboxLayer(root)),
        // Debian's busybox lacks it.
        ...(await programLayer("/usr/bin/flock", join(root, "usr/bin/flock"), { root })),
      },
      await serverLayer(root),
      {
        "/usr/local/bin/postgres-entry": {
          source: join(import.meta.dirname, "postgres", "entry"),
          mode: 0o755,
        },
        "/etc/passwd": { content: "root:x:0:0:root:/root:/bin/sh\npostgres:x:65532:65532::/tmp:/bin/sh\n" },
        "/etc/group": { content: "root:x:0:\npostgres:x:65532:\n" },
        "/etc/nsswitch.conf": { content: "hosts: files dns\n" },
        "/etc/postgresql/postgresql.conf": { content: configuration },
        "/etc/postgresql/pg_hba.conf": { content: access },
        "/etc/postgresql/pg_ident.conf": { content: "" },
        "/etc/postgres-made": { directory: true },
        "/etc/postgres-secret": { directory: true },
        "/run/postgresql": { directory: true, mode: 0o1777 },
        "/tmp": { directory: true, mode: 0o1777 },
        // Times are in UTC; PostgreSQL warns if the folder of time zones is missing.
        "/usr/share/zoneinfo": { directory: true },
        "/var/lib/postgresql": { directory: true, mode: 0o1777 },
      },
    ],
    config: { entrypoint: ["/usr/local/bin/postgres-entry"], cmd: ["server"], user },
  };
  const { stdout } = await execa(join(root, bin, "pg_ctl"), ["--version"]);
  const [version = major] = /\d+\.\d+/.exec(stdout) ?? [];
  return { ...image, ref: `${repository}:${version}-${(await imagesKey([image])).slice(0, 12)}` };
}

const bin = `/usr/lib/postgresql/${major}/bin`;

async function serverLayer(root: string): Promise<Layer> {
  const lib = `/usr/lib/postgresql/${major}/lib`;
  const share = `/usr/share/postgresql/${major}`;
  const extra = Object.fromEntries(modules.map((name) => [`${lib}/${name}`, join(root, lib, name)]));
  const layer: Record<string, Layer[string]> = {};
  for (const name of programs) {
    const at = `${bin}/${name}`;
    const needs = name === "postgres" ? { root, extra } : { root };
    Object.assign(layer, await programLayer(at, join(root, at), needs));
    // They find their files relative to their real paths.
    layer[`/usr/bin/${name}`] = { symlink: `../lib/postgresql/${major}/bin/${name}` };
  }
  const files = await Promise.all(
    sharedFolders.map(async (folder) =>
      (await readdir(join(root, share, folder))).map((name) => `${folder}/${name}`),
    ),
  );
  for (const file of [...shared, ...files.flat()])
    layer[`${share}/${file}`] = { source: join(root, share, file), mode: 0o644 };
  return layer;
}

/** The database's image as an archive, built if it is not in the cache. */
export async function postgresImage(progress: Progress = () => {}): Promise<ImageArchive> {
  const image = await postgresImageSpec(progress);
  return { path: await cachedArchive("postgres", [image], progress), ref: image.ref };
}
