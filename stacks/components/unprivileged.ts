import type * as k8s from "@pulumi/kubernetes";

/** Security context of an unprivileged pod, which complies with Pod Security's level `restricted`. */
export const unprivilegedPod = {
  runAsNonRoot: true,
  runAsUser: 65532,
  runAsGroup: 65532,
  seccompProfile: { type: "RuntimeDefault" },
} as const satisfies k8s.types.input.core.v1.PodSecurityContext;

/** Security context of its containers: no privilege escalation, and only mounted volumes are writable. */
export const unprivilegedContainer = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ["ALL"] },
} satisfies k8s.types.input.core.v1.SecurityContext;
