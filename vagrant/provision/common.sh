# Shared by k3s.sh, leave.sh and uninstall.sh; sent in front of them, as one script.
# shellcheck shell=bash
# Numbers and messages must be the same everywhere: EPOCHREALTIME has a comma in many locales.
export LC_ALL=C
# On RHEL and similar systems, sudo's PATH lacks K3s's folder.
export PATH="$PATH:/usr/local/bin:/opt/k3s-lab/bin"

data=/var/lib/rancher/k3s
config=/etc/rancher/k3s
# The lab's notes on a machine; uninstall.sh removes them.
notes=/var/lib/k3s-lab

way_back() {
  echo "If more than half of the servers are lost for good, one that still has its data can continue alone, and the others join it: see docs/troubleshooting.md, 'A cluster that lost most of its servers'. A plain k3s server --cluster-reset is not enough."
}

# The scripts query only this machine and the lab's others: without the machine's proxy and root's .curlrc.
curl() { command curl --disable --noproxy '*' "$@"; }

# pause SECONDS: sleeps without a process, because a poll must not take CPU time from what it waits for.
pause() { read -r -t "$1" <> <(:) || true; }

# until_true SECONDS COMMAND...: repeats until the command succeeds; 1 if it does not in time.
until_true() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    if [ $SECONDS -ge $deadline ]; then return 1; fi
    pause 0.5
  done
}

# Only one script at a time changes this machine. A script that still runs although its sender was interrupted would later
# roll back the current change: it is ended, and what it saved is the starting point.
take_over() {
  local own other
  read -r _ _ _ _ own _ </proc/$$/stat # its process group
  exec 8>>$notes/lock
  if ! flock --nonblock 8; then
    other=$(cat $notes/lock)
    if [ -n "$other" ] && [ "$other" != "$own" ]; then kill -KILL -- "-$other" || true; fi
    if ! flock --wait 10 8; then
      echo "another run is working on this machine: wait until it ends, then try again" >&2
      exit 1
    fi
  fi
  echo "$own" >$notes/lock
}

# K3s acts as kubectl under that name. kubectl's cache is removed with the lab.
kubectl() { (exec -a kubectl /usr/local/bin/k3s --request-timeout=10s --cache-dir=/run/k3s-lab/kubectl "$@"); }

# etcd ADDRESS CALL [JSON]: queries a server's etcd like K3s itself, through etcd's JSON gateway.
etcd() {
  local tls=$data/server/tls/etcd body=${3-} port
  if [ -z "$body" ]; then body='{}'; fi
  for port in 2379 2382; do # K3s 1.28 and later keep HTTP on a port of its own
    if curl --silent --fail --max-time 5 --cacert $tls/server-ca.crt --cert $tls/client.crt --key $tls/client.key \
      --data "$body" "https://$1:$port/v3/$2" 2>/dev/null; then
      return
    fi
  done
  return 1
}

# hash_of FILE: its SHA-256; nothing if there is no such file. The hash of its CA certificate identifies a cluster.
hash_of() { if [ -s "$1" ]; then sha256sum <"$1" | cut -d ' ' -f 1; fi; }

has_etcd() { [ -d $data/server/db/etcd/member ]; }
# Whether K3s has data here that could be lost. A server that was refused when it joined also has a kubelet's certificate,
# but nothing of the cluster.
has_data() {
  if [ "$NODE_ROLE" = agent ]; then [ -e $data/agent/client-kubelet.crt ]; else [ -e $data/server/db/state.db ] || has_etcd; fi
}

# etcd_members: one per line, "ID NAME ADDRESS"; the name is "-" until the member has started.
etcd_members() {
  local reply
  reply=$(etcd 127.0.0.1 cluster/member/list) || return 1
  printf '%s\n' "${reply#*\"members\":}" | tr '{' '\n' | awk '/"ID":/ {
    id = name = address = "-"
    if (match($0, /"ID":"[0-9]+"/)) id = substr($0, RSTART + 6, RLENGTH - 7)
    if (match($0, /"name":"[^"]+"/)) name = substr($0, RSTART + 8, RLENGTH - 9)
    if (match($0, /"peerURLs":\["https:\/\/[^:"]+/)) address = substr($0, RSTART + 21, RLENGTH - 21)
    print id, name, address
  }'
}

# members_of NODE: selects this node's lines of etcd_members on standard input: K3s names a member NODE-XXXXXXXX.
members_of() {
  local id name address
  while read -r id name address; do
    if [[ $name =~ ^(.*)-[0-9a-f]{8}$ && ${BASH_REMATCH[1]} = "$1" ]]; then echo "$id $name $address"; fi
  done
}

# etcd_status ADDRESS: "OWN LEADER", the ids of a member and of the leader that it sees.
etcd_status() {
  local reply
  reply=$(etcd "$1" maintenance/status) || return 1
  if ! [[ $reply =~ \"member_id\":\"([0-9]+)\" ]]; then return 1; fi
  local own=${BASH_REMATCH[1]}
  if ! [[ $reply =~ \"leader\":\"([1-9][0-9]*)\" ]]; then return 1; fi
  echo "$own ${BASH_REMATCH[1]}"
}

# hand_over ADDRESS ID: etcd's leader at this address makes another member leader. That takes milliseconds; a leader that
# vanishes is missed for seconds.
hand_over() { etcd "$1" maintenance/transfer-leadership "{\"targetID\":\"$2\"}" >/dev/null; }

# may_hold FOLDER: whether a folder has content, or may have because it cannot be listed.
may_hold() {
  local content
  [ -e "$1" ] || return 1
  content=$(ls -A "$1") || return 0
  [ -n "$content" ]
}

# remove_k3s SCRIPT...: removes K3s with these of its own scripts. They delete all of /etc/rancher/k3s; what the lab did not put there is kept.
remove_k3s() {
  local script theirs=$notes/theirs
  rm -rf $config/token $config/join $config/k3s.yaml $config/k3s-lab-resolv.conf $config/config.yaml.d/k3s-lab.yaml $config/config.yaml.d/k3s-lab-secret.yaml
  rmdir $config/config.yaml.d 2>/dev/null || true
  if may_hold $config; then
    mkdir -p "$notes"
    cp -a --no-target-directory $config $theirs
  fi
  for script in "$@"; do
    if [ -x "/usr/local/bin/$script" ]; then "/usr/local/bin/$script"; fi
  done
  if [ -d $theirs ]; then
    mkdir -p $config
    cp -a $theirs/. $config
    rm -rf $theirs
  fi
}
