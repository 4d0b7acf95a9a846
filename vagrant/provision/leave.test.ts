import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";

const folder = await mkdtemp(join(tmpdir(), "leave-"));
after(() => rm(folder, { recursive: true }));

const scripts = (
  await Promise.all(
    ["common.sh", "leave.sh"].map((file) => readFile(join(import.meta.dirname, file), "utf8")),
  )
).join("");

interface Cluster {
  /** Members of etcd as "ID NAME ADDRESS"; the server that is asked is 1. Default: three, and 3 leaves. */
  readonly members?: readonly string[];
  /** The id of etcd's leader; 0: none. Default: 1. */
  readonly leader?: string;
  /** Whether etcd lets members go. Default: true. */
  readonly letsGo?: boolean;
  /** Which question for its members etcd does not answer. Default: it answers all. */
  readonly silentAt?: number;
  /** What the API says of the node. Default: it is Ready. */
  readonly node?: string;
  /** Deployments of one replica as "NAMESPACE NAME LAB". Default: none. */
  readonly deployments?: string;
  /** Pods of the node as "NAMESPACE PREFIX HASH END", the first time that it is asked for them, the second, … Default: none. */
  readonly pods?: readonly string[];
  /** All of the node's pods as "NAMESPACE/NAME CONTROLLED", the last true or missing. Default: none. */
  readonly all?: string;
  /** What the node has: "has LABEL", "has TAINT", "own MARKS OF THE LAB'S". Default: none. */
  readonly marks?: readonly string[];
  /** How many drains go on side by side: each ends when all have begun. Default: 1. */
  readonly together?: number;
  /** Whether the lone pods of another node are just moving. Default: false. */
  readonly isMoving?: boolean;
  /** Whether a node that is deleted stays until its finalizers are taken away. Default: false. */
  readonly isHeld?: boolean;
  /** Whether its API answers. Default: true. */
  readonly answers?: boolean;
  /** Whether its first installation is under way. Default: false. */
  readonly begins?: boolean;
  /** Whether the server's manifests are those of a cluster with a load balancer. Default: false. */
  readonly isBalanced?: boolean;
  /** Whether K3s is there at all. Default: true. */
  readonly isThere?: boolean;
}

/** Runs leave.sh on a server whose etcd and API are played by a curl, and writes down what is done to them. */
async function leave(
  name: string,
  step: string,
  cluster: Cluster = {},
  environment: Record<string, string> = {},
) {
  const root = join(folder, name.replaceAll(/\W+/g, "-"));
  const path = (file: string) => join(root, file);
  const put = async (file: string, text: string) => {
    await mkdir(dirname(path(file)), { recursive: true });
    await writeFile(path(file), text, { mode: 0o755 });
  };
  const {
    members = ["1 one-0000000a 10.0.0.1", "2 two-0000000b 10.0.0.2", "3 three-0000000c 10.0.0.3"],
    leader = "1",
    letsGo = true,
    silentAt = 0,
    node = '{"kind":"Node","type":"Ready","status":"True"}',
    deployments = "",
    pods = [],
    all = "",
    marks = [],
    together = 1,
    isMoving = false,
    isHeld = false,
    answers = true,
    begins = false,
    isBalanced = false,
    isThere = true,
  } = cluster;
  await put("members", `${members.join("\n")}\n`);
  await put("leader", leader);
  await put("log", "");
  for (const [turn, text] of pods.entries()) await put(`pods/${turn + 1}`, text);
  if (isBalanced) await put("var/lib/rancher/k3s/server/manifests/k3s-lab-traefik-retry.yaml", "");
  if (begins) await put("var/lib/k3s-lab/installing", "");
  if (isThere) {
    await put(
      "usr/local/bin/k3s",
      `#!/bin/bash
case "$*" in
*"get deployments"*) printf '${deployments}' ;;
*"get node three"*) printf '%b' '${marks.map((one) => `${one}\\n`).join("")}' ;;
*ownerReferences*) printf '${all}' ;;
*"get pods"*) echo >>${path("pods-asked")}; cat ${path("pods")}/"$(wc -l <${path("pods-asked")})" 2>/dev/null ;;
*) echo "kubectl $*" >>${path("log")} ;;
esac
case "$*" in *" drain "*) ${together > 1 ? `until [ "$(grep -c ' drain ' ${path("log")})" = ${together} ]; do sleep 0.05; done; echo "drain ends" >>${path("log")}` : ":"} ;; esac
case "$*" in *"${isHeld ? "finalizers" : "node/three"}"*) touch ${path("forgotten")} ;; esac
test "$(cat ${path("leader")})" != 0
`,
    );
    await put("var/lib/rancher/k3s/server/tls/client-admin.crt", "");
    await put("var/lib/rancher/k3s/server/db/etcd/member/snap", "");
  }
  await put(
    "bin/curl",
    `#!/bin/bash
url="\${*: -1}"
data=$(sed -n 's/.*--data \\({[^ ]*}\\).*/\\1/p' <<<"$*")
case "$url" in
*:2382/*) exit 7 ;;
*/member/list)
  [ "$(cat ${path("leader")})" != 0 ] || exit 22
  echo >>${path("asked")}
  [ "$(wc -l <${path("asked")})" != ${silentAt} ] || exit 28
  printf '{"header":{"member_id":"1"},"members":['
  while read -r id name ip; do
    [ "$name" = - ] && name= || name="\\"name\\":\\"$name\\","
    printf '{"ID":"%s",%s"peerURLs":["https://%s:2380"]}' "$id" "$name" "$ip"
  done <${path("members")}
  printf ']}' ;;
*/maintenance/status) printf '{"header":{"member_id":"1"},"leader":"%s"}' "$(cat ${path("leader")})" ;;
*/transfer-leadership) echo "hand over at $url to $data" >>${path("log")}; printf 1 >${path("leader")} ;;
*/member/remove)
  echo "remove $data" >>${path("log")}
  ${letsGo ? `id=$(tr -dc 0-9 <<<"$data"); sed -i "/^$id /d" ${path("members")}` : "exit 22"} ;;
*/readyz) ${answers ? "printf ok" : "exit 7"} ;;
*/nodes/*) if [ -e ${path("forgotten")} ]; then printf %s '{"code":404}'; else printf %s '${node}'; fi ;;
esac
`,
  );
  const other = `mkdir -p /run/k3s-lab
exec 6>/run/k3s-lab/lone.lock
flock 6
(until grep -q ' cordon ' ${path("log")}; do sleep 0.05; done; sleep 0.5; echo "the other has moved" >>${path("log")}) &
exec 6>&-
`;
  const script = `${isMoving ? other : ""}${scripts}`
    .replaceAll(
      /(?<![\w$])\/(usr\/local\/bin|var\/lib\/rancher|var\/lib\/k3s-lab|run\/k3s-lab)/g,
      `${root}/$1`,
    )
    // Only what never comes is not waited for.
    .replace("until_true 60 answers", `until_true ${answers ? 60 : 1} answers`)
    .replace("local deadline=$((SECONDS + 60))", `local deadline=$((SECONDS + ${letsGo ? 60 : 3}))`)
    .replace("until_true 60 etcd_members", `until_true ${leader === "0" ? 1 : 60} etcd_members`)
    .replace("until_true 10 is_unknown", "until_true 1 is_unknown");
  const { status, stdout, stderr } = spawnSync("bash", ["-s", step], {
    input: script,
    encoding: "utf8",
    timeout: 120_000,
    env: {
      PATH: `${path("bin")}:${process.env.PATH}`,
      NODE_NAME: "three",
      NODE_IP: "10.0.0.3",
      ...environment,
    },
  });
  const log = (await readFile(path("log"), "utf8"))
    .trimEnd()
    .split("\n")
    .map((line) =>
      line
        .replace(/ --request-timeout=\S+ --cache-dir=\S+/, "")
        .replaceAll(root, "")
        .replace(/--timeout=\d+s (?=deployment)/, ""),
    );
  return { status, stdout, stderr, log, members: (await readFile(path("members"), "utf8")).trim() };
}

const drain = "kubectl drain three --ignore-daemonsets --delete-emptydir-data --force --timeout=60s";
/** Before a change, where every pod has a controller. */
const drainedForChange = drain.replace(" --force", "");
/** Where no Deployment has its only pod on the node. */
const drained = ["kubectl cordon three", drain];

test("a server that leaves is drained, and then leaves etcd", async () => {
  const { status, stderr, log, members } = await leave("leaves", "before");
  assert.equal(status, 0, stderr);
  assert.deepEqual(log, [...drained, 'remove {"ID":"3"}']);
  assert.equal(members, "1 one-0000000a 10.0.0.1\n2 two-0000000b 10.0.0.2");
});

for (const silentAt of [2, 3])
  test(`C3: etcd does not answer query ${silentAt} for its members: the server has not left`, async () => {
    const { status, stderr, log } = await leave(`silent at ${silentAt}`, "before", { silentAt });
    assert.equal(status, 0, stderr);
    assert.deepEqual(log.slice(2), ['remove {"ID":"3"}']);
  });

const lone = {
  deployments:
    "default app1 lab-1\\ndefault app3 lab-1\\nkube-system coredns\\nkube-system traefik\\nmine db\\n",
  here: "default app1-5d8f9 5d8f9 \ndefault app1-5d8f9- 5d8f9 \nkube-system traefik-77c- 77c \nkube-system coredns-6f- 6f \nmine db-1a- 1a \nmine app3-  \n",
};
const moved = (...names: readonly string[]) =>
  ["restart", "status"].flatMap((step) =>
    names.map((name) => {
      const [namespace, app] = name.split("/");
      return `kubectl rollout ${step} --namespace ${namespace} deployment/${app}`;
    }),
  );

test("a workload whose only pod is there gets its replacement elsewhere first", async () => {
  const { deployments, here } = lone;
  const { log } = await leave("lone", "cordon", { deployments, pods: [here] });
  assert.deepEqual(log.slice(1), [
    "kubectl cordon three",
    ...moved("default/app1", "kube-system/traefik"),
    drainedForChange,
  ]);
});

test("a replacement that lands on the node moves on, and a pod that is already ending is left alone", async () => {
  const { deployments, here } = lone;
  const late =
    "default app1-5d8f9- 5d8f9 2026-01-01T00:00:00Z\nkube-system traefik-99b- 99b \ndefault app1-6c- 6c \n";
  const ends = "kube-system traefik-99b- 99b 2026-01-01T00:00:00Z\n";
  const { log } = await leave("lone and late", "cordon", { deployments, pods: [here, late, ends] });
  assert.deepEqual(log.slice(1), [
    "kubectl cordon three",
    ...moved("default/app1", "kube-system/traefik"),
    ...moved("default/app1", "kube-system/traefik"),
    drainedForChange,
  ]);
});

test("of two nodes that leave at once, the second moves its single pods after the first", async () => {
  const { deployments, here } = lone;
  const { log } = await leave("lone and held", "cordon", { deployments, pods: [here], isMoving: true });
  assert.deepEqual(log, [
    "kubectl annotate --overwrite node three k3s-lab/cordoned=true",
    "kubectl cordon three",
    "the other has moved",
    ...moved("default/app1", "kube-system/traefik"),
    drainedForChange,
  ]);
});

test("etcd's leader hands over to a remaining server before it leaves", async () => {
  const { status, stderr, log } = await leave("leader", "before", { leader: "3" });
  assert.equal(status, 0, stderr);
  assert.deepEqual(log, [
    ...drained,
    'hand over at https://10.0.0.3:2379/v3/maintenance/transfer-leadership to {"targetID":"1"}',
    'remove {"ID":"3"}',
  ]);
});

test("a server that etcd does not release stays", async () => {
  const { status, stderr } = await leave("kept", "before", { letsGo: false });
  assert.equal(status, 1);
  assert.match(stderr, /etcd did not remove three within 60 s: it stays a server/);
});

test("without a quorum it is reported, with K3s's recovery procedure", async () => {
  const node = '{"kind":"Status","code":404}';
  const { status, stderr } = await leave("no quorum", "before", { leader: "0", node });
  assert.equal(status, 1);
  assert.match(stderr, /etcd does not answer within 60 s, .*'A cluster that lost most of its servers'/);
});

test("a lost server and one that never got a name are removed from etcd and the cluster, and no other", async () => {
  const { status, stderr, log, members } = await leave("lost", "forget", {
    members: [
      "1 one-0000000a 10.0.0.1",
      "2 three-x-0000000b 10.0.0.2",
      "3 three-0000000c 10.0.0.9",
      "4 - 10.0.0.3",
    ],
    node: '{"kind":"Node","type":"Ready","status":"Unknown"}',
  });
  assert.equal(status, 0, stderr);
  assert.equal(members, "1 one-0000000a 10.0.0.1\n2 three-x-0000000b 10.0.0.2");
  assert.deepEqual(log.slice(2), [
    "kubectl delete --ignore-not-found --wait=false --namespace kube-system node/three secret/three.node-password.k3s",
    "kubectl delete pods --all-namespaces --force --grace-period=0 --field-selector spec.nodeName=three",
  ]);
});

test("a node that its missing controller still holds is gone before the next of its name joins", async () => {
  const { status, log } = await leave("held", "forget", { isHeld: true });
  assert.equal(status, 0);
  assert.equal(log.at(-1), `kubectl patch node three --type=merge --patch {"metadata":{"finalizers":null}}`);
});

test("a node that the cluster does not know is not mentioned", async () => {
  const { status, log } = await leave("unknown", "forget", {
    members: ["1 one-0000000a 10.0.0.1"],
    node: '{"kind":"Status","code":404}',
  });
  assert.equal(status, 0);
  assert.deepEqual(log, [""]);
});

test("a node is cordoned for a change and uncordoned afterwards; one that somebody else cordoned stays so", async () => {
  assert.deepEqual((await leave("cordon", "cordon")).log, [
    "kubectl annotate --overwrite node three k3s-lab/cordoned=true",
    "kubectl cordon three",
    drainedForChange,
  ]);
  const theirs = '{"kind":"Node","spec":{"unschedulable":true},"type":"Ready","status":"True"}';
  assert.deepEqual((await leave("theirs", "cordon", { node: theirs })).log, [""]);
  assert.deepEqual((await leave("theirs later", "uncordon", { node: theirs })).log, [""]);
  const ours = theirs.replace("}", ',"annotations":{"k3s-lab/cordoned":"true"}}');
  assert.deepEqual((await leave("uncordon", "uncordon", { node: ours })).log, [
    "kubectl uncordon three",
    "kubectl annotate node three k3s-lab/cordoned-",
  ]);
});

test("a pod that no controller would recreate stays while its node changes, and the others move", async () => {
  const { log, stdout } = await leave("bare", "cordon", {
    together: 3,
    all: "default/mine\\nkube-system/dns true\\n",
  });
  assert.deepEqual(
    log.slice(2, 5).sort(),
    ["controller-revision-hash", "controller-uid", "pod-template-hash"].map((label) =>
      drain.replace("--force", `--pod-selector=${label}`),
    ),
  );
  // Each may wait a minute for a PodDisruptionBudget.
  assert.deepEqual(log.slice(5), ["drain ends", "drain ends", "drain ends"]);
  assert.match(stdout, /no controller would recreate.*default\/mine$/m);
});

const marked = (given: string) => `kubectl annotate --overwrite node three k3s-lab/marks${given}`;
const marks: readonly (readonly [string, readonly string[], string, readonly string[]])[] = [
  [
    "what K3s applied when the node joined is recorded as the lab's",
    ["has disk=ssd", "has dedicated=db:NoSchedule", "has team=x"],
    "--v=2 --node-label=disk=ssd --node-taint=dedicated=db:NoSchedule",
    [marked("=disk=ssd,dedicated=db:NoSchedule")],
  ],
  [
    "new entries of the file are added, and recorded first",
    ["has team=x", "has other:NoExecute", "own disk=ssd", "has disk=ssd"],
    "--node-label=disk=ssd,zone=a --node-taint=dedicated=db:NoSchedule --node-taint=full=:PreferNoSchedule",
    [
      marked("=disk=ssd,zone=a,dedicated=db:NoSchedule,full:PreferNoSchedule"),
      "kubectl label --overwrite node three zone=a",
      "kubectl taint --overwrite node three dedicated=db:NoSchedule full:PreferNoSchedule",
    ],
  ],
  [
    "entries that left the file are removed, and what others applied stays",
    [
      ...["disk=ssd", "team=x", "dedicated=db:NoSchedule", "other=db:NoSchedule"].map((one) => `has ${one}`),
      "own disk=ssd,dedicated=db:NoSchedule",
    ],
    "",
    [
      "kubectl label --overwrite node three disk-",
      "kubectl taint --overwrite node three dedicated:NoSchedule-",
      marked("-"),
    ],
  ],
  [
    "another value is no removal, and what somebody has changed since is no longer the lab's",
    [
      ...["disk=hdd", "zone=a", "dedicated=mine:NoSchedule", "gpu=1:NoSchedule"].map((one) => `has ${one}`),
      "own disk=ssd,zone=a,dedicated=db:NoSchedule,gpu=1:NoSchedule",
    ],
    "--node-label=zone=b --node-taint=gpu=2:NoSchedule",
    [
      marked("=zone=b,gpu=2:NoSchedule"),
      "kubectl label --overwrite node three zone=b",
      "kubectl taint --overwrite node three gpu=2:NoSchedule",
    ],
  ],
  [
    "what was removed by hand is applied again",
    ["own disk=ssd"],
    "--node-label=disk=ssd",
    ["kubectl label --overwrite node three disk=ssd"],
  ],
  [
    "nothing is done if everything matches the file",
    ["has disk=ssd", "own disk=ssd"],
    "--node-label=disk=ssd",
    [""],
  ],
  ["nothing is done if there are none", ["has team=x"], "--v=2", [""]],
];
for (const [what, found, K3S_ARGS, expected] of marks)
  test(`labels and taints of a node: ${what}`, async () => {
    const { status, stderr, log } = await leave(what, "marks", { marks: found }, { K3S_ARGS });
    assert.equal(status, 0, stderr);
    assert.deepEqual(log, expected);
  });

test("labels and taints of a node: plain Vagrant, which cannot ask, evicts no pods by a new taint", async () => {
  const K3S_ARGS = "--node-taint=a=b:NoExecute,c=d:NoSchedule";
  const set = (found: readonly string[], more: Record<string, string>) =>
    leave(`by hand ${found}`, "marks", { marks: found }, { K3S_ARGS, ...more });
  const refused = await set(["has a=1:NoExecute"], { BY_HAND: "yes" });
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /would evict pods from three: a=b:NoExecute\. .*scripts\/lab up/);
  assert.deepEqual(refused.log, [""]);
  const taint = "kubectl taint --overwrite node three a=b:NoExecute c=d:NoSchedule";
  assert.ok((await set([], {})).log.includes(taint));
  assert.ok((await set(["own a=b:NoExecute"], { BY_HAND: "yes" })).log.includes(taint), "it was its own");
});

test("Traefik's load balancer settings are removed once no Traefik uses them", async () => {
  const uses = '["--entrypoints.web.http.middlewares=kube-system-k3s-lab-retry@kubernetescrd"]';
  const { status, log } = await leave("unbalanced", "unbalance", { pods: [uses, uses, '["--ping=true"]'] });
  assert.equal(status, 0);
  assert.deepEqual(log, [
    "kubectl delete --ignore-not-found --namespace kube-system addons.k3s.cattle.io/k3s-lab-traefik-retry",
    ...["traefik.io", "traefik.containo.us"].map(
      (group) =>
        `kubectl delete --ignore-not-found --namespace kube-system middlewares.${group}/k3s-lab-retry`,
    ),
  ]);
});

test("a cluster that still has a load balancer keeps it, though its API does not answer", async () => {
  const { status, log } = await leave("balanced", "unbalance", { isBalanced: true, answers: false });
  assert.equal(status, 0);
  assert.deepEqual(log, [""]);
});

test("without a cluster nothing is done, and the exit code says so", async () => {
  assert.equal((await leave("none", "before", { isThere: false })).status, 3);
});

for (const [what, begins, expected] of [
  ["does not answer: another one is asked, because the node would be refused as existing", false, 4],
  ["is only starting: it has nothing to remove, and another one may have the cluster", true, 3],
] as const)
  test(`a node that lost its data joins again, and the API of a server ${what}`, async () => {
    const { status, log } = await leave(`no answer ${begins}`, "forget", { answers: false, begins });
    assert.equal(status, expected);
    assert.deepEqual(log.filter(Boolean), []);
  });
