import type * as pulumi from "@pulumi/pulumi";
import type { MyAppConfig } from "../model/config.ts";
import type { Database } from "./database.ts";
import type { WebAppArgs } from "./web-app.ts";

/** Name of the database in PostgreSQL, and of the role that owns it. */
export const databaseOwner = "guestbook";

/** Inputs of the guest book's web apps. */
export interface GuestBookParts extends Pick<MyAppConfig, "title" | "greeting"> {
  /** One image for all of them; the argument selects the role. */
  readonly image: pulumi.Input<string>;
  readonly database: Pick<Database, "host" | "readHost">;
  readonly password: pulumi.Input<string>;
  readonly adminPassword: pulumi.Input<string>;
}

type Name = MyAppConfig["apps"][number]["name"];
type Parts = Pick<
  WebAppArgs,
  "image" | "args" | "config" | "secret" | "volumes" | "sidecars" | "initContainers"
>;

const [config, secret] = ["/etc/my-app", "/etc/my-app-secret"];
const log = { name: "log", mountPath: "/var/log/my-app" };

/** Settings of one of the web apps, beside those of every web app. */
export const guestBookApp = (name: Name, parts: GuestBookParts): Parts => ({
  image: parts.image,
  args: [name],
  ...(name === "frontend" ? page(parts) : withDatabase(parts)),
});

/** The page talks to the API only. A sidecar reads its access log from a shared volume and exports metrics. */
const page = ({ image, title, greeting }: GuestBookParts): Omit<Parts, "image" | "args"> => ({
  config: { mountPath: config, files: { title, greeting, "api-url": "http://api/api" } },
  volumes: [{ ...log, source: { emptyDir: { sizeLimit: "64Mi" } } }],
  sidecars: [
    {
      name: "log-metrics",
      image,
      args: ["log-metrics"],
      env: [
        { name: "PORT", value: "9091" },
        { name: "METRICS_PORT", value: "9090" },
      ],
      ports: [{ name: "log-metrics", containerPort: 9090 }],
      volumeMounts: [{ ...log, readOnly: true }],
    },
  ],
});

/** The API and the admin page start once the database answers. They share the admin's password. */
const withDatabase = ({
  image,
  database,
  password,
  adminPassword,
}: GuestBookParts): Omit<Parts, "image" | "args"> => ({
  config: {
    mountPath: config,
    files: {
      "database-host": database.host,
      "database-read-host": database.readHost,
      "database-name": databaseOwner,
      "database-user": databaseOwner,
    },
  },
  secret: { mountPath: secret, files: { password, "admin-password": adminPassword } },
  initContainers: [
    {
      name: "wait",
      image,
      args: ["wait"],
      volumeMounts: [
        { name: "config", mountPath: config, readOnly: true },
        { name: "secret", mountPath: secret, readOnly: true },
      ],
    },
  ],
});
