import { join } from "node:path";
import { stackDir } from "../lib/paths.ts";

/** Where `lab up` notes how far a cluster is that it is creating. */
export const earlyFolder = (cluster: string): string => join(stackDir(cluster), "early");

/** Names that folder to the apps' program. With plain Pulumi it is unset. */
export const earlyVariable = "LAB_EARLY";

/** The kubeconfig that the cluster's stack will export: there once the API server answers. */
export const earlyKubeconfig = (folder: string): string => join(folder, "kubeconfig");

/** Exists once every node holds the images of the stack's pods. */
export const earlyImages = (folder: string): string => join(folder, "images");
