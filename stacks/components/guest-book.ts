import type * as pulumi from "@pulumi/pulumi";
import type { MyAppConfig } from "../model/config.ts";
import type { Database } from "./database.ts";
import type { WebAppArgs } from "./web-app.ts";

/** Name of the database in PostgreSQL, and of the role that owns it. */
export const databaseOwner = "guestbook";

/** What the web apps of the guest book are told. */
export interface GuestBookParts extends Pick<MyAppConfig, "title" | "greeting"> {
  /** The one image of them all; its argument says which it is. */
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

/** What one of the web apps is made of, beside what every web app has. */
export const guestBookApp = (name: Name, parts: GuestBookParts): Parts => ({
  image: parts.image,
  args: [name],
  ...(name === "frontend" ? page(parts) : withDatabase(parts)),
});

/** The page asks the API alone. A second container of its pod reads its access log from their volume, as metrics. */
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

/** API and admin page begin once the database answers. The API knows the admin by a password that both have. */
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
