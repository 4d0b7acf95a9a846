import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { serviceNames } from "../model/concepts.ts";
import { skipAwait } from "./web-app.ts";

export interface ServiceTypesArgs {
  /** Namespace of the app and of its Services. */
  readonly namespace: string;
  /** Name of the app; its Service of type ClusterIP has the same name. */
  readonly appName: string;
  /** NodePort. Default: Kubernetes chooses one. */
  readonly nodePort?: number | undefined;
  /** Port of the load balancer. Default: no Service of type LoadBalancer. */
  readonly loadBalancerPort?: number | undefined;
}

/** An app's pods behind every other type of Service: NodePort, LoadBalancer, headless, and ExternalName. */
export class ServiceTypes extends pulumi.ComponentResource {
  constructor(name: string, args: ServiceTypesArgs, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:apps:ServiceTypes", name, {}, opts);
    const { namespace, appName, nodePort, loadBalancerPort } = args;
    const labels = { "app.kubernetes.io/part-of": "k3s-lab" };
    const selector = { ...labels, "app.kubernetes.io/name": appName };
    const service = (type: keyof typeof serviceNames, spec: k8s.types.input.core.v1.ServiceSpec) =>
      new k8s.core.v1.Service(
        `${name}-${serviceNames[type]}`,
        { metadata: { name: serviceNames[type], namespace, labels, annotations: skipAwait }, spec },
        { parent: this },
      );
    const toPods = (port = 80, own: { readonly nodePort?: number } = {}) => ({
      selector,
      ports: [{ name: "http", port, targetPort: "http", ...own }],
    });

    service("nodePort", { type: "NodePort", ...toPods(80, nodePort === undefined ? {} : { nodePort }) });
    if (loadBalancerPort !== undefined)
      service("loadBalancer", { type: "LoadBalancer", ...toPods(loadBalancerPort) });
    service("headless", { clusterIP: "None", ...toPods() });
    service("externalName", {
      type: "ExternalName",
      externalName: `${appName}.${namespace}.svc.cluster.local`,
    });
    this.registerOutputs();
  }
}
