#!/bin/bash
# Continues with the one remaining server after most of the servers were lost for good: makes it the only member of a new
# etcd with its data. Nothing calls this script. Run it by hand, as root on that server, after eval "$(scripts/lab env)":
#   ssh -F .lab/ssh/NAME.STACK/config NAME.STACK sudo bash -s <vagrant/provision/reset.sh
#
# `k3s server --cluster-reset` alone is not enough: etcd then continues its log, and discards what other members had not
# confirmed there, although the database may contain it. Servers that join replay the log, and their data differs from then
# on (etcd-io/etcd#14009, k3s-io/k3s#11992). From a copy of the database K3s starts a new log, and servers that join get the data.
set -euo pipefail

readonly data=/var/lib/rancher/k3s/server unit=/etc/systemd/system/k3s.service
readonly db=$data/db/etcd/member/snap/db
copy=$data/etcd-reset-$(date +%s).db
# Not kept across a restart of the machine, whatever happens here.
readonly override=/run/systemd/system/k3s.service.d/k3s-lab-reset.conf

die() {
  echo "reset.sh: $1" >&2
  exit 1
}

answers() {
  local tls=$data/tls
  [ "$(curl --disable --noproxy '*' --silent --max-time 5 --cacert $tls/server-ca.crt --cert $tls/client-admin.crt --key $tls/client-admin.key https://127.0.0.1:6443/readyz)" = ok ]
}

# answers_within SECONDS
answers_within() {
  local deadline=$((SECONDS + $1))
  until answers; do
    if [ $SECONDS -ge $deadline ]; then return 1; fi
    read -r -t 0.5 <> <(:) || true
  done
}

# K3s's own command without the flags for joining, which K3s refuses in a reset.
reset_command() {
  sed -n '/^ExecStart=/,/^$/p' $unit | grep --invert-match --extended-regexp "^[[:space:]]*'--server=|^\$"
  echo "	'--cluster-reset' '--cluster-reset-restore-path=$copy'"
}

if [ ! -e $unit ] || [ ! -s $db ]; then
  die "there is no server of K3s here that has data in $data/db/etcd. If a reset was interrupted, the data is in $data/db/etcd-old-*: move the newest to $data/db/etcd"
fi
has_majority() { die "the cluster answers here: it has its majority and needs no reset. Run \`scripts/lab up\`."; }
if answers; then has_majority; fi
# A stopped, starting or busy server does not answer either, although the others may have their majority. If they do, it joins
# them.
patience=$((60 * $(cat /var/lib/k3s-lab/slowness 2>/dev/null || echo 1)))
echo "Checking for $patience s whether the cluster has its majority after all"
systemctl reset-failed k3s || true
systemctl start --no-block k3s
if answers_within $patience; then has_majority; fi

systemctl stop k3s
# Like etcd's snapshots: with the database's SHA-256 at the end.
(umask 077 && cp $db "$copy")
sum=$(sha256sum <$db)
for ((at = 0; at < 64; at += 2)); do printf '%b' "\\x${sum:at:2}"; done >>"$copy"
mkdir -p "$(dirname $override)"
trap 'rm -f $override; systemctl daemon-reload' EXIT
{
  # K3s exits when it is done.
  printf '[Service]\nType=oneshot\nRestart=no\nTimeoutStartSec=600\nExecStart=\n'
  reset_command
} >$override
systemctl daemon-reload
if ! systemctl start k3s; then
  journalctl --no-pager --lines 20 --unit k3s >&2
  die "K3s did not reset etcd; its last lines are above. The data is in $copy, and in $data/db/etcd or the newest $data/db/etcd-old-*"
fi
rm -f $override
systemctl daemon-reload
systemctl start k3s
answers_within 600 || die "K3s's API does not answer; see on this machine: journalctl --unit k3s"
rm -f "$copy"
echo "This server continues alone, with its data. Run \`scripts/lab up\`: it recreates the others, which join it."
echo "The old etcd is in $data/db/etcd-old-*; remove it when all is well."
