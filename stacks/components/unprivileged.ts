import type * as k8s from "@pulumi/kubernetes";

/** A pod that may do nothing but its work; Pod Security's level `restricted` takes it. */
export const unprivilegedPod = {
  runAsNonRoot: true,
  runAsUser: 65532,
  runAsGroup: 65532,
  seccompProfile: { type: "RuntimeDefault" },
} as const satisfies k8s.types.input.core.v1.PodSecurityContext;

/** Its containers: no way to more rights, and nothing to write to but what is mounted. */
export const unprivilegedContainer = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ["ALL"] },
} satisfies k8s.types.input.core.v1.SecurityContext;
