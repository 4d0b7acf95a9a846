import { closest } from "fastest-levenshtein";
import { words } from "../lib/words.ts";

/** The components inside K3s that get options by `--kubelet-arg` and the like. */
export type Component =
  | "kubelet"
  | "kube-apiserver"
  | "kube-controller-manager"
  | "kube-scheduler"
  | "kube-proxy"
  | "cloud-controller-manager"
  | "etcd";

/** Options by the type of their value; `own` are those that K3s or the lab sets. */
type Options = Readonly<Partial<Record<"own" | "number" | "switch" | "duration" | "text", string>>>;

/**
 * The options of Kubernetes v1.25 to v1.34 and its etcd, by component: `name>28` was added in v1.28, `name<31` removed in
 * v1.31. A component exits at any other option, and K3s with it; etcd ignores it.
 */
const options: Readonly<Record<string, Options>> = {
  "kubelet kube-apiserver kube-controller-manager kube-scheduler kube-proxy cloud-controller-manager": {
    own: "kubeconfig",
    switch: "log-json-split-stream>26 log-text-split-stream>30",
    duration: "log-flush-frequency",
    text: "feature-gates log-json-info-buffer-size>26 log-text-info-buffer-size>30 logging-format v vmodule",
  },
  "kubelet kube-apiserver kube-controller-manager kube-scheduler cloud-controller-manager": {
    own: "cert-dir client-ca-file tls-cert-file tls-private-key-file",
    switch: "contention-profiling",
    duration: `
      authentication-token-webhook-cache-ttl authorization-webhook-cache-authorized-ttl
      authorization-webhook-cache-unauthorized-ttl`,
    text: "tls-cipher-suites tls-min-version",
  },
  "kube-apiserver kube-controller-manager kube-scheduler kube-proxy cloud-controller-manager": {
    own: "emulated-version",
    switch: "profiling",
    text: `
      allow-metric-labels allow-metric-labels-manifest>29 disabled-metrics show-hidden-metrics-for-version`,
  },
  "kubelet kube-controller-manager kube-scheduler kube-proxy cloud-controller-manager": {
    number: "kube-api-burst kube-api-qps",
    text: "kube-api-content-type",
  },
  "kube-apiserver kube-controller-manager kube-scheduler cloud-controller-manager": {
    own: `
      authentication-kubeconfig authentication-skip-lookup authentication-tolerate-lookup-failure
      authorization-always-allow-paths authorization-kubeconfig permit-address-sharing permit-port-sharing
      requestheader-allowed-names requestheader-client-ca-file requestheader-extra-headers-prefix
      requestheader-group-headers requestheader-uid-headers requestheader-username-headers secure-port`,
    number: "http2-max-streams-per-connection",
    switch: "disable-http2-serving>31",
    text: "tls-sni-cert-key",
  },
  "kubelet kube-apiserver kube-controller-manager kube-scheduler": {
    number: "log-file-max-size<26",
    switch: `
      add-dir-header<26 alsologtostderr<26 logtostderr<26 one-output<26 skip-headers<26 skip-log-headers<26`,
    text: "log-backtrace-at<26 log-dir<26 log-file<26 stderrthreshold<26",
  },
  "kube-controller-manager kube-scheduler cloud-controller-manager": {
    own: "leader-elect master",
    duration: "leader-elect-lease-duration leader-elect-renew-deadline leader-elect-retry-period",
    text: "bind-address leader-elect-resource-lock leader-elect-resource-namespace",
  },
  "kube-controller-manager cloud-controller-manager": {
    own: `
      allocate-node-cidrs allow-untagged-cloud cidr-allocator-type cloud-config cloud-provider cluster-cidr
      cluster-name configure-cloud-routes controllers enable-leader-migration external-cloud-volume-plugin
      leader-migration-config use-service-account-credentials webhook-bind-address webhook-cert-dir
      webhook-secure-port webhook-tls-cert-file webhook-tls-private-key-file webhooks`,
    number: "concurrent-node-syncs>27 concurrent-service-syncs",
    duration: `
      controller-start-interval min-resync-period node-monitor-period node-sync-period
      route-reconciliation-period`,
  },
  kubelet: {
    own: `
      address bootstrap-kubeconfig cgroup-driver cgroup-root cloud-config cloud-provider cluster-dns
      cluster-domain config config-dir container-runtime container-runtime-endpoint containerd
      containerd-namespace enable-server exit-on-lock-contention hostname-override
      image-credential-provider-bin-dir image-credential-provider-config image-service-endpoint
      kubelet-cgroups lock-file manifest-url manifest-url-header master-service-namespace node-ip
      node-labels pod-cidr pod-infra-container-image pod-manifest-path port protect-kernel-defaults
      provider-id register-node register-schedulable register-with-taints resolv-conf root-dir runonce
      runtime-cgroups`,
    number: `
      application-metrics-count-limit container-log-max-files event-burst event-qps
      eviction-max-pod-grace-period healthz-port image-gc-high-threshold image-gc-low-threshold
      iptables-drop-bit<31 iptables-masquerade-bit<31 max-open-files max-pods maximum-dead-containers
      maximum-dead-containers-per-container node-status-max-images oom-score-adj pod-max-pids pods-per-core
      read-only-port registry-burst registry-qps`,
    switch: `
      anonymous-auth authentication-token-webhook cgroups-per-qos cpu-cfs-quota
      enable-controller-attach-detach enable-debugging-handlers enable-load-reader
      experimental-allocatable-ignore-eviction fail-cgroupv1>31 fail-swap-on keep-terminated-pod-volumes<31
      kernel-memcg-notification local-storage-capacity-isolation log-cadvisor-usage
      make-iptables-util-chains rotate-certificates rotate-server-certificates seccomp-default
      serialize-image-pulls storage-driver-secure`,
    duration: `
      cpu-cfs-quota-period cpu-manager-reconcile-period eviction-pressure-transition-period
      file-check-frequency global-housekeeping-interval housekeeping-interval http-check-frequency
      minimum-container-ttl-duration minimum-image-ttl-duration node-status-update-frequency
      runtime-request-timeout storage-driver-buffer-duration streaming-connection-idle-timeout
      sync-frequency volume-stats-agg-period`,
    text: `
      allowed-unsafe-sysctls authorization-mode boot-id-file container-hints container-log-max-size
      cpu-manager-policy cpu-manager-policy-options enforce-node-allocatable event-storage-age-limit
      event-storage-event-limit eviction-hard eviction-minimum-reclaim eviction-soft
      eviction-soft-grace-period experimental-mounter-path hairpin-mode healthz-bind-address kube-reserved
      kube-reserved-cgroup machine-id-file memory-manager-policy qos-reserved reserved-cpus reserved-memory
      storage-driver-db storage-driver-host storage-driver-table storage-driver-user system-cgroups
      system-reserved system-reserved-cgroup topology-manager-policy topology-manager-policy-options>26
      topology-manager-scope volume-plugin-dir`,
  },
  "kube-apiserver": {
    own: `
      address advertise-address advertise-port allow-privileged apiserver-count authorization-config
      authorization-mode bind-address cloud-config cloud-provider debug-socket-path
      egress-selector-config-file emulation-forward-compatible enable-aggregator-routing
      encryption-provider-config encryption-provider-config-automatic-reload endpoint-reconciler-type
      etcd-cafile etcd-certfile etcd-keyfile etcd-prefix etcd-servers etcd-servers-overrides
      insecure-bind-address insecure-port kubelet-certificate-authority kubelet-client-certificate
      kubelet-client-key kubelet-port kubelet-read-only-port kubernetes-service-node-port
      master-service-namespace peer-advertise-ip peer-advertise-port peer-ca-file port
      proxy-client-cert-file proxy-client-key-file runtime-config-emulation-forward-compatible
      service-account-key-file service-account-signing-endpoint service-account-signing-key-file
      service-cluster-ip-range service-node-port-range storage-backend token-auth-file`,
    number: `
      audit-log-batch-buffer-size audit-log-batch-max-size audit-log-batch-throttle-burst
      audit-log-batch-throttle-qps audit-log-maxage audit-log-maxbackup audit-log-maxsize
      audit-log-truncate-max-batch-size audit-log-truncate-max-event-size audit-webhook-batch-buffer-size
      audit-webhook-batch-max-size audit-webhook-batch-throttle-burst audit-webhook-batch-throttle-qps
      audit-webhook-truncate-max-batch-size audit-webhook-truncate-max-event-size
      default-not-ready-toleration-seconds default-unreachable-toleration-seconds default-watch-cache-size
      delete-collection-workers goaway-chance identity-lease-duration-seconds<26
      identity-lease-renew-interval-seconds<26 lease-reuse-duration-seconds max-connection-bytes-per-sec
      max-mutating-requests-inflight max-requests-inflight min-request-timeout`,
    switch: `
      aggregator-reject-forwarding-redirect anonymous-auth audit-log-batch-throttle-enable
      audit-log-compress audit-log-truncate-enabled audit-webhook-batch-throttle-enable
      audit-webhook-truncate-enabled enable-bootstrap-token-auth enable-garbage-collector
      enable-logs-handler enable-priority-and-fairness service-account-extend-token-expiration
      service-account-lookup shutdown-send-retry-after watch-cache`,
    duration: `
      audit-log-batch-max-wait audit-webhook-batch-initial-backoff audit-webhook-batch-max-wait
      audit-webhook-initial-backoff coordinated-leadership-lease-duration>34
      coordinated-leadership-renew-deadline>34 coordinated-leadership-retry-period>34
      etcd-compaction-interval etcd-count-metric-poll-period etcd-db-metric-poll-interval
      etcd-healthcheck-timeout etcd-readycheck-timeout event-ttl kubelet-timeout livez-grace-period
      request-timeout service-account-max-token-expiration shutdown-delay-duration
      shutdown-watch-termination-grace-period>27 storage-initialization-timeout>31`,
    text: `
      admission-control admission-control-config-file api-audiences audit-log-format audit-log-mode
      audit-log-path audit-log-version audit-policy-file audit-webhook-config-file audit-webhook-mode
      audit-webhook-version authentication-config>29 authentication-token-webhook-config-file
      authentication-token-webhook-version authorization-policy-file authorization-webhook-config-file
      authorization-webhook-version cors-allowed-origins disable-admission-plugins enable-admission-plugins
      external-hostname kubelet-preferred-address-types oidc-ca-file oidc-client-id oidc-groups-claim
      oidc-groups-prefix oidc-issuer-url oidc-required-claim oidc-signing-algs oidc-username-claim
      oidc-username-prefix runtime-config service-account-issuer service-account-jwks-uri storage-media-type
      strict-transport-security-directives tracing-config-file watch-cache-sizes`,
  },
  "kube-controller-manager": {
    own: `
      cluster-signing-cert-file cluster-signing-key-file cluster-signing-kube-apiserver-client-cert-file
      cluster-signing-kube-apiserver-client-key-file cluster-signing-kubelet-client-cert-file
      cluster-signing-kubelet-client-key-file cluster-signing-kubelet-serving-cert-file
      cluster-signing-kubelet-serving-key-file cluster-signing-legacy-unknown-cert-file
      cluster-signing-legacy-unknown-key-file root-ca-file service-account-private-key-file
      service-cluster-ip-range`,
    number: `
      concurrent-cron-job-syncs>28 concurrent-daemonset-syncs>32 concurrent-deployment-syncs
      concurrent-endpoint-syncs concurrent-ephemeralvolume-syncs concurrent-gc-syncs
      concurrent-horizontal-pod-autoscaler-syncs>26 concurrent-job-syncs>28 concurrent-namespace-syncs
      concurrent-rc-syncs concurrent-replicaset-syncs concurrent-resource-quota-syncs
      concurrent-service-endpoint-syncs concurrent-serviceaccount-token-syncs concurrent-statefulset-syncs
      concurrent-ttl-after-finished-syncs concurrent-validating-admission-policy-status-syncs>28
      horizontal-pod-autoscaler-tolerance large-cluster-size-threshold max-endpoints-per-slice
      mirroring-concurrent-service-endpoint-syncs mirroring-max-endpoints-per-subset node-cidr-mask-size
      node-cidr-mask-size-ipv4 node-cidr-mask-size-ipv6 node-eviction-rate pv-recycler-increment-timeout-nfs
      pv-recycler-minimum-timeout-hostpath pv-recycler-minimum-timeout-nfs
      pv-recycler-timeout-increment-hostpath secondary-node-eviction-rate terminated-pod-gc-threshold
      unhealthy-zone-threshold`,
    switch: `
      disable-attach-detach-reconcile-sync disable-force-detach-on-timeout>30 enable-dynamic-provisioning
      enable-garbage-collector enable-hostpath-provisioner enable-taint-manager<27
      volume-host-allow-local-loopback<31`,
    duration: `
      attach-detach-reconcile-sync-period cluster-signing-duration endpoint-updates-batch-period
      endpointslice-updates-batch-period horizontal-pod-autoscaler-cpu-initialization-period
      horizontal-pod-autoscaler-downscale-delay<31 horizontal-pod-autoscaler-downscale-stabilization
      horizontal-pod-autoscaler-initial-readiness-delay horizontal-pod-autoscaler-sync-period
      horizontal-pod-autoscaler-upscale-delay<31 legacy-service-account-token-clean-up-period>28
      mirroring-endpointslice-updates-batch-period namespace-sync-period node-monitor-grace-period
      node-startup-grace-period pod-eviction-timeout<27 pvclaimbinder-sync-period resource-quota-sync-period`,
    text: `
      flex-volume-plugin-dir leader-elect-resource-name pv-recycler-pod-template-filepath-hostpath
      pv-recycler-pod-template-filepath-nfs volume-host-cidr-denylist<31`,
  },
  "kube-scheduler": {
    duration: "pod-max-in-unschedulable-pods-duration",
    text: "config leader-elect-resource-name",
  },
  "kube-proxy": {
    own: `
      bind-address cluster-cidr config detect-local-mode hostname-override master pod-bridge-interface
      pod-interface-name-prefix`,
    number: `
      conntrack-max-per-core conntrack-min healthz-port iptables-masquerade-bit metrics-port oom-score-adj`,
    switch: `
      bind-address-hard-fail conntrack-tcp-be-liberal>29 iptables-localhost-nodeports>26 ipvs-strict-arp
      masquerade-all`,
    duration: `
      config-sync-period conntrack-tcp-timeout-close-wait conntrack-tcp-timeout-established
      conntrack-udp-timeout-stream>29 conntrack-udp-timeout>29 iptables-min-sync-period iptables-sync-period
      ipvs-min-sync-period ipvs-sync-period ipvs-tcp-timeout ipvs-tcpfin-timeout ipvs-udp-timeout
      udp-timeout<26`,
    text: `
      healthz-bind-address ipvs-exclude-cidrs ipvs-scheduler metrics-bind-address nodeport-addresses
      proxy-mode proxy-port-range<31`,
  },
  "cloud-controller-manager": {
    own: "leader-elect-resource-name",
    duration: "node-status-update-frequency",
  },
  etcd: {
    own: `
      advertise-client-urls auto-tls cert-file client-cert-auth client-cert-file client-key-file
      client-transport-security data-dir discovery discovery-proxy discovery-srv discovery-srv-name
      force-new-cluster initial-advertise-peer-urls initial-cluster initial-cluster-state
      initial-cluster-token key-file listen-client-urls listen-metrics-urls listen-peer-urls log-outputs
      logger name peer-transport-security trusted-ca-file unsafe-no-fsync wal-dir`,
    number: `
      auth-token-ttl backend-batch-limit bcrypt-cost bootstrap-defrag-threshold-megabytes>34
      compaction-batch-limit>34 distributed-tracing-sampling-rate>34 election-timeout
      experimental-bootstrap-defrag-threshold-megabytes experimental-compaction-batch-limit
      experimental-distributed-tracing-sampling-rate experimental-snapshot-catch-up-entries
      heartbeat-interval max-concurrent-streams max-learners>34 max-request-bytes max-snapshots max-txn-ops
      max-wals quota-backend-bytes self-signed-cert-validity snapshot-catchup-entries>34 snapshot-count`,
    switch: `
      enable-distributed-tracing>34 enable-grpc-gateway enable-log-rotation enable-pprof enable-v2<33
      experimental-compact-hash-check-enabled experimental-enable-distributed-tracing
      experimental-enable-lease-checkpoint experimental-enable-lease-checkpoint-persist
      experimental-initial-corrupt-check experimental-memory-mlock experimental-stop-grpc-service-on-defrag
      experimental-txn-mode-write-with-shared-buffer initial-election-tick-advance memory-mlock>34 pre-vote
      strict-reconfig-check`,
    duration: `
      backend-batch-interval compact-hash-check-time>34 compaction-sleep-interval>34 corrupt-check-time>34
      downgrade-check-time>34 experimental-compact-hash-check-time experimental-compaction-sleep-interval
      experimental-corrupt-check-time experimental-downgrade-check-time experimental-warning-apply-duration
      experimental-warning-unary-request-duration experimental-watch-progress-notify-interval
      grpc-keepalive-interval grpc-keepalive-min-time grpc-keepalive-timeout warning-apply-duration>34
      warning-unary-request-duration>34 watch-progress-notify-interval>34`,
    text: `
      auth-token auto-compaction-mode auto-compaction-retention backend-bbolt-freelist-type cipher-suites
      cors distributed-tracing-address>34 distributed-tracing-instance-id>34
      distributed-tracing-service-name>34 experimental-distributed-tracing-address
      experimental-distributed-tracing-instance-id experimental-distributed-tracing-service-name
      experimental-enable-v2v3<33 feature-gates>34 host-whitelist log-format>34 log-level
      log-rotation-config-json metrics tls-max-version tls-min-version v2-deprecation`,
  },
};

const optionsOf = (component: Component, kind: keyof Options): readonly string[] =>
  Object.entries(options).flatMap(([programs, one]) =>
    words(programs).includes(component) ? words(one[kind]) : [],
  );

const forms: readonly (readonly [Exclude<keyof Options, "own">, RegExp, string])[] = [
  // Go reads a leading 0 as octal.
  ["number", /^(0|-?[1-9]\d{0,14})(\.\d+)?$/, "a decimal number"],
  ["switch", /^(true|false)$/, "true or false"],
  ["duration", /^(0|(\d+(\.\d+)?(ms|s|m|h))+)$/, "a duration such as 5m0s"],
  ["text", /^/, "text"],
];

const gates = /^[A-Z]\w*=(true|false)(,[A-Z]\w*=(true|false))*$/;

/**
 * What is wrong with an option of a component inside K3s, such as `max-pods=50`; undefined if nothing is.
 * @param minor the minor release of Kubernetes. @param newest the newest one in the tables: a later one may have other
 * options.
 */
export function componentProblem(
  component: Component,
  given: string,
  minor: number,
  newest: number,
): string | undefined {
  // K3s appends the value to its own where the name ends in + or -.
  const [, name = "", value = ""] = /^([a-z][a-zA-Z0-9-]*?)[-+]?=(.+)$/s.exec(given) ?? [];
  if (name === "") return "an option and its value, such as max-pods=50";
  if (optionsOf(component, "own").includes(name))
    return `an option other than ${name}, which K3s or the lab sets`;
  const known = forms.flatMap(([kind, form, expected]) =>
    optionsOf(component, kind).flatMap((one) => {
      const [, option = "", since = 0, until = Number.POSITIVE_INFINITY] =
        /^([^<>]+)(?:>(\d+))?(?:<(\d+))?$/.exec(one) ?? [];
      return Number(since) <= minor && minor < Number(until) ? [{ option, form, expected }] : [];
    }),
  );
  if (name === "feature-gates" && !gates.test(value))
    return `${name} with GATE=true or GATE=false, separated by commas`;
  const found = known.find(({ option }) => option === name);
  if (found) return found.form.test(value) ? undefined : `${name} with ${found.expected}`;
  if (minor > newest) return undefined;
  const names = known.map(({ option }) => option);
  return `an option of ${component} in Kubernetes v1.${minor} (did you mean ${closest(name, names)}?)`;
}
