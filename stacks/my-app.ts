import { AppNamespace } from "./components/app-namespace.ts";
import { Backup } from "./components/backup.ts";
import { certificatesFor } from "./components/certificate-authority.ts";
import { Database } from "./components/database.ts";
import { guestBookApp, databaseOwner as owner } from "./components/guest-book.ts";
import { Password } from "./components/kept-secret.ts";
import { ingressClassOf, podImage, progressDeadline, useCluster } from "./components/on-cluster.ts";
import { WebApp } from "./components/web-app.ts";
import { stackConfig } from "./model/stack-config.ts";

const passwordOf = (name: string) => new Password(name).value;

/** A guest book: its page, API, admin page and database, on the cluster that the stack names. */
export default async function myApp() {
  const config = stackConfig("my-app");
  const { ingress, ingressNamespace, images } = config;
  const cluster = await useCluster(config);
  const { awaitAddress, child } = cluster;
  const [databaseImage, image] = await Promise.all([
    podImage("postgres", images.database, cluster),
    podImage("my-app", images.app, cluster),
  ]);
  const home = new AppNamespace(config.namespace, { ingress, ingressNamespace }, child);
  const inHome = { ...child, dependsOn: home };

  const password = passwordOf("db-password");
  const { replicas, ...kept } = config.database;
  const database = new Database(
    "db",
    {
      ...kept,
      ...{ owner, password, replicationPassword: passwordOf("replication-password") },
      ...{ namespace: home.name, image: databaseImage, replica: replicas > 1 },
    },
    inHome,
  );

  new Backup(
    "db-backup",
    {
      ...config.backup,
      ...{ owner, host: database.host, secretName: database.secret.metadata.name, image: databaseImage },
      ...{ namespace: home.name, size: kept.size, storageClass: kept.storageClass },
    },
    inHome,
  );

  const parts = { ...config, image, database, password, adminPassword: passwordOf("admin-password") };
  const shared = {
    namespace: home.name,
    ingressClass: ingressClassOf(config, cluster),
    awaitAddress,
    progressDeadlineSeconds: progressDeadline([images.app, images.database], cluster),
  };
  const issue = certificatesFor(config.apps, cluster);
  const made = config.apps.map(
    (app) =>
      new WebApp(
        app.name,
        { ...app, ...shared, ...guestBookApp(app.name, parts), tls: issue(app, home.name) },
        inHome,
      ),
  );
  return { urls: made.map(({ url }) => url) };
}
