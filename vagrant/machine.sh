#!/bin/sh
# Drives one machine: machine.sh up | update | destroy for Pulumi, find for the Vagrantfile, which prints the provider's id of
# a machine that is there; and machine.sh remove-leftovers for what no state knows of
#   K3S_LAB_ROOT    the checkout; its .lab/id says whose machines are whose
#   LAB_STACK       the stack that the machine belongs to
#   LAB_PROVIDER    docker | libvirt | virtualbox, which are Vagrant's; or hosts: the machine is there already
#   LAB_MACHINE     the machine as JSON, as it was when Pulumi recorded it; the Vagrantfile takes it over the stack file
#   LAB_NETWORK     the machines' network, such as 192.168.42.0/24
#   LAB_GENERATION  names this making of the machine, and is written on it; of a host its /etc/machine-id
#   stdin           up, update: the machine's ssh configuration
#
# A machine is ours when it carries the lab's id and the stack, both whole. Nothing else is changed or removed. And it is absent
# when its provider gives a list that it is not on: a failed question ends this script.
set -eu

lab="$K3S_LAB_ROOT/.lab/$LAB_STACK"
id=$(cat "$K3S_LAB_ROOT/.lab/id")
export VAGRANT_CWD="$K3S_LAB_ROOT/vagrant" VAGRANT_DOTFILE_PATH="$lab/vagrant"

die() {
  echo "machine.sh: $*" >&2
  exit 1
}

# Both are translated.
virsh() { LC_ALL=C command virsh --connect qemu:///system --quiet "$@" </dev/null; }
VBoxManage() { LC_ALL=C command VBoxManage "$@" </dev/null; }

# containers [FILTER...]: the ids of this lab's containers; of one that a person started from a commit of a machine, the labels
# are that image's.
containers() {
  own=$(docker ps --all --no-trunc --quiet --filter "label=k3s-lab.id=$id" "$@") || return
  images=$(docker image ls --all --no-trunc --quiet --filter label=k3s-lab.id) || return
  if [ -n "$images" ]; then
    # shellcheck disable=SC2046,SC2086 # an option for each
    copies=$(docker ps --all --no-trunc --quiet $(printf -- '--filter ancestor=%s ' $images)) || return
    own=$(printf '%s\n' "$own" | grep -Fxv "${copies:-none}" || true)
  fi
  printf '%s\n' "$own" | sed '/^$/d'
}
of_stack="label=k3s-lab.stack=$LAB_STACK"

# whose MARKS ID: the provider's ID of a machine of our name where its marks, one a word or line, are this stack's; "lost=…" with
# the lab's id on it where it is the one that was recorded, for then .lab/id is not what it was; else "other".
whose() {
  marks=" $(printf '%s' "$1" | tr '\n' ' ') "
  case "$marks" in
  *" k3s-lab.id=$id "*"k3s-lab.stack=$LAB_STACK "*) echo "$2" ;;
  *" k3s-lab.generation=${LAB_GENERATION:-none} "*) printf '%s\n' "$marks" | tr ' ' '\n' | sed -n 's/^k3s-lab\.id=/lost=/p' ;;
  *) echo other ;;
  esac
}

# The names of our domains. Without libvirt there are none. A clone has the marks too, and another name.
domains() {
  command -v virsh >/dev/null || return 0
  all=$(virsh list --all --name)
  for domain in $all; do
    case "$domain" in "k3s-lab-$LAB_STACK-"*) ;; *) continue ;; esac
    desc=$(virsh desc "$domain")
    named=$(printf '%s\n' "$desc" | sed -n 's/.*k3s-lab\.machine=\([^ ]*\).*/\1/p')
    if [ "$(whose "$desc" ours)" = ours ] && [ "$domain" = "k3s-lab-$LAB_STACK-$named" ]; then echo "$domain"; fi
  done
}

# remove_domain DOMAIN: removes a domain of ours and its disk.
remove_domain() {
  if [ "$(virsh domstate "$1")" != "shut off" ]; then virsh destroy "$1" >/dev/null; fi
  virsh undefine "$1" >/dev/null
  virsh vol-delete --pool k3s-lab "$1.img" >/dev/null 2>&1 || true
}

# Vagrant would remove every unused network of its own, whoever's project made it.
remove_containers() { for container in $found; do docker rm --force --volumes "$container" >/dev/null; done; }

# Our networks go with our last machine: one that is stopped needs its network too, and Docker does not count it. Those of
# k3d's clusters bear their stack's name and are not machines'.
remove_networks() {
  remaining=$(containers --filter label=k3s-lab.machine)
  if [ -n "$remaining" ]; then return; fi
  all=$(docker network ls --filter "label=k3s-lab.id=$id" --format '{{.ID}}{{with .Label "k3s-lab.stack"}} {{.}}{{end}}')
  for network in $(printf '%s\n' "$all" | sed '/ /d'); do
    # Docker refuses to remove a network that is in use, but not one that a stopped container needs to start again.
    users=$(docker ps --all --filter "network=$network" --format '{{.Names}}')
    if [ -n "$users" ]; then
      echo "warning: the network $network stays, because this lab did not create what is in it: $(echo "$users" | xargs); disconnect it with docker network disconnect --force $network NAME"
      continue
    fi
    docker network rm "$network" >/dev/null 2>&1 || true
  done
}

# An interrupted run can leave behind a machine that no state knows of; nobody else would remove it.
if [ "$1" = remove-leftovers ]; then
  case "$LAB_PROVIDER" in
  docker)
    found=$(containers --filter "$of_stack")
    remove_containers
    remove_networks
    ;;
  libvirt)
    found=$(domains)
    for domain in $found; do remove_domain "$domain"; done
    ;;
  *) exit ;;
  esac
  rm -rf "$VAGRANT_DOTFILE_PATH/machines" "$lab/machines"
  exit
fi

field() { printf '%s' "$LAB_MACHINE" | sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }
name=$(field name)
ssh="$K3S_LAB_ROOT/.lab/ssh/$name.$LAB_STACK"
alias="$name.$LAB_STACK"
machine="k3s-lab-$LAB_STACK-$name"
# The provider's id that Vagrant has a note of.
note="$VAGRANT_DOTFILE_PATH/machines/$name/$LAB_PROVIDER/id"
noted=$(cat "$note" 2>/dev/null || true)

write_ssh_config() {
  mkdir -p "$ssh" "$lab/machines"
  cat >"$ssh/config"
  host_key=$(field hostKey)
  if [ -n "$host_key" ]; then printf '%s %s\n' "$alias" "$host_key" >"$ssh/known_hosts"; fi
}

# find_PROVIDER: the provider's id of our machine; nothing where it is absent, else what `whose` says.
find_docker() {
  ours=$(containers --filter "$of_stack" --filter "label=k3s-lab.machine=$name") || return
  if [ -n "$ours" ]; then echo "$ours" && return; fi
  docker ps --all --filter "$of_stack" --filter "label=k3s-lab.machine=$name" \
    --filter "label=k3s-lab.generation=${LAB_GENERATION:-none}" --format 'lost={{.Label "k3s-lab.id"}}'
}
find_libvirt() {
  all=$(virsh list --all --name)
  if ! printf '%s\n' "$all" | grep -Fqx "$machine"; then
    all=$(virsh list --all --uuid)
    if [ -z "$noted" ] || ! printf '%s\n' "$all" | grep -Fqx "$noted"; then return; fi
    renamed=$(virsh domname "$noted")
    # Its disk keeps the name that the next machine's would have.
    die "libvirt now calls the machine $name $renamed: it was renamed. Rename it back: virsh --connect qemu:///system domrename $renamed $machine"
  fi
  desc=$(virsh desc "$machine")
  uuid=$(virsh domuuid "$machine")
  whose "$desc" "$uuid"
}
find_virtualbox() {
  all=$(VBoxManage list vms)
  uuid=$(printf '%s\n' "$all" | sed -n "s/^\"$machine\" {\(.*\)}\$/\1/p")
  if [ -z "$uuid" ]; then
    renamed=$(printf '%s\n' "$all" | sed -n "s/^\"\([^<].*\)\" {$noted}\$/\1/p")
    # Vagrant gives a name and the marks only after it has made one.
    if [ -n "$renamed" ] && VBoxManage getextradata "$noted" enumerate | grep -q '^Key: k3s-lab\.machine,'; then die "VirtualBox now calls the machine $name $renamed: it was renamed. Rename it back: VBoxManage modifyvm '$renamed' --name $machine"; fi
    unread="\"<inaccessible>\" {$noted}"
    if printf '%s\n' "$all" | grep -Fqx "$unread"; then die "VirtualBox cannot read the files of the machine $name: $unread. Mount the disk that holds them, then run the same command again"; fi
    return
  fi
  data=$(VBoxManage getextradata "$uuid" enumerate)
  data=$(printf '%s\n' "$data" | sed -n 's/^Key: \(k3s-lab\.[a-z]*\), Value: \(.*\)$/\1=\2/p')
  # A Vagrant that was interrupted has made it and not marked it.
  if [ -z "$data" ] && [ "$noted" = "$uuid" ]; then echo "$uuid"; else whose "$data" "$uuid"; fi
}

# What lets us in and shows the host key that was noted runs, whatever the list says: another user, or another daemon, has it.
refuse_out_of_sight() {
  [ -s "$ssh/known_hosts" ] || return 0
  if ssh -o StrictHostKeyChecking=yes -o ConnectTimeout=5 -o ConnectionAttempts=1 -F "$ssh/config" "$alias" true </dev/null >/dev/null 2>&1; then
    die "$LAB_PROVIDER lists no machine $name of this lab, but it answers over ssh: it runs where this list does not show it. Run the same command as the user, and with the Docker daemon (DOCKER_HOST), that created it"
  fi
}

# find_machine: sets `found` and tells Vagrant which machine it is: without its notes it would make another.
find_machine() {
  found=$("find_$LAB_PROVIDER")
  case "$found" in
  '') refuse_out_of_sight ;;
  other) return ;;
  lost=*) die "the machine $name was created under the lab id ${found#lost=}, but .lab/id has a different one now: it was lost. Restore it with \`echo ${found#lost=} >'$K3S_LAB_ROOT/.lab/id'\`, then run the same command again" ;;
  esac
  if [ -n "$found" ] && [ "$noted" != "$found" ]; then
    mkdir -p "$(dirname "$note")"
    printf '%s' "$found" >"$note"
  fi
}

start() { vagrant up "$name" --provider "$LAB_PROVIDER" --no-provision --no-color; }

# has_size CPUS MEMORY: whether these, in MiB, are what the machine is to have.
has_size() { [ "$1" = "$(field cpus)" ] && [ "$2" = "$(field memory)" ]; }

# The id of Docker's network with the machines' addresses, whoever made it.
network_of_machines() {
  all=$(docker network ls --quiet --no-trunc)
  for one in $all; do
    subnet=$(docker network inspect --format '{{range .IPAM.Config}}{{.Subnet}}{{end}}' "$one")
    if [ "$subnet" = "$LAB_NETWORK" ]; then echo "$one"; fi
  done
}

# resume_PROVIDER ID: a machine that is there runs, in its network, and has its size. One that has all that is left alone.
resume_docker() {
  network=$(network_of_machines)
  if [ -z "$network" ]; then
    # Docker removes networks that no running machine uses when it is told to prune.
    network=$(docker network create --label "k3s-lab.id=$id" --subnet "$LAB_NETWORK" "vagrant_network_$LAB_NETWORK")
  fi
  case "$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.NetworkID}} {{end}}' "$1")" in
  *"$network"*) ;;
  *)
    # In a container that runs, the interface would be eth2, and K3s holds on to the one that was.
    docker stop "$1" >/dev/null
    docker network disconnect --force "vagrant_network_$LAB_NETWORK" "$1" >/dev/null 2>&1 || true
    docker network connect --ip "$(field ip)" "$network" "$1"
    ;;
  esac
  case "$(docker inspect --format '{{.State.Status}}' "$1")" in
  running) ;;
  paused) docker unpause "$1" >/dev/null ;;
  *) docker start "$1" >/dev/null ;;
  esac
  docker update --cpu-period 100000 --cpu-quota "$(field cpus)00000" --memory "$(field memory)m" --memory-swap "$(field memory)m" "$1" >/dev/null
}
resume_libvirt() {
  case "$(virsh domstate "$1")" in
  running) ;;
  paused) virsh resume "$1" >/dev/null ;;
  pmsuspended) virsh dompmwakeup "$1" >/dev/null ;;
  *) start ;;
  esac
  info=$(virsh dominfo "$1")
  memory=$(printf '%s\n' "$info" | awk '/^Max memory:/ { print $3 / 1024 }')
  has_size "$(printf '%s\n' "$info" | awk '/^CPU\(s\):/ { print $2 }')" "$memory" || vagrant reload "$name" --no-provision --no-color
}
resume_virtualbox() {
  value() { VBoxManage showvminfo "$1" --machinereadable | sed -n "s/^$2=\"\{0,1\}\([^\"]*\)\"\{0,1\}\$/\1/p"; }
  case "$(value "$1" VMState)" in
  running) ;;
  paused) VBoxManage controlvm "$1" resume ;;
  *) start ;;
  esac
  has_size "$(value "$1" cpus)" "$(value "$1" memory)" || vagrant reload "$name" --no-provision --no-color
}

# Waits until a machine that was started lets us in; an emulated processor takes its time.
wait_for_ssh() {
  seconds=$([ "$LAB_PROVIDER" = docker ] && echo 120 || echo 900)
  deadline=$(($(date +%s) + seconds))
  until said=$(ssh -F "$ssh/config" "$alias" true </dev/null 2>&1 >/dev/null); do
    # ssh itself waits between its attempts.
    if [ "$(date +%s)" -ge "$deadline" ]; then die "the machine $name runs but does not answer ssh after $seconds s: $said"; fi
  done
}

# Docker takes a limit above what there is for no limit.
say_cpus() {
  have=$(docker info --format '{{.NCPU}}')
  if [ "$(field cpus)" -gt "$have" ]; then echo "warning: $name asks for $(field cpus) CPUs, but Docker has only $have"; fi
}

# A user may have defined a machine of their own from the disk that would be recreated.
refuse_used_disk() {
  all=$(virsh list --all --uuid)
  for domain in $all; do # a name may hold blanks
    disks=$(virsh domblklist "$domain")
    if printf '%s\n' "$disks" | grep -Fq "/$machine.img"; then
      die "the machine $(virsh domname "$domain") in libvirt has the disk $machine.img, which would be recreated for $name: remove that machine, or give it another disk, then run the same command again"
    fi
  done
}

bring_up() {
  if [ "$LAB_PROVIDER" = docker ]; then say_cpus; fi
  find_machine
  if [ "$found" = other ]; then
    die "$LAB_PROVIDER already has a machine $machine that is not this lab's. Nothing was touched. Take it down where it was created, or rename this stack or machine"
  elif [ -n "$found" ]; then
    "resume_$LAB_PROVIDER" "$found"
    wait_for_ssh
  else
    # A machine that is made now has a new host key.
    rm -f "$ssh/known_hosts"
    # Vagrant has a note of ours and libvirt no such machine: removing it was interrupted before its disk was deleted.
    if [ "$LAB_PROVIDER" = libvirt ] && [ -n "$noted" ]; then
      refuse_used_disk
      virsh vol-delete --pool k3s-lab "$machine.img" >/dev/null 2>&1 || true
    fi
    start
  fi
}

# ask_host: runs the script on standard input there as bash, whatever the user's login shell is.
ask_host() { ssh -F "$ssh/config" "$alias" bash -s; }

# The host is the one that the program checked; its host key is noted by this first sight of it.
meet_host() {
  shown=$([ -s "$ssh/known_hosts" ] || echo yes)
  said=$(echo 'sed s/^/machine-id=/ /etc/machine-id' | ask_host 2>&1) || die "the host $name cannot be reached: $(printf '%s\n' "$said" | tail -n 1)"
  case "$said" in
  *"machine-id=$LAB_GENERATION"*) ;;
  *) die "another host answers now as $name: its /etc/machine-id is not $LAB_GENERATION. Run the same command again" ;;
  esac
  if [ "$shown" ]; then echo "recorded the host key of $name: $(ssh-keygen -l -f "$ssh/known_hosts" | head -n 1)"; fi
}

# Removes what an interrupted installation brought, and what is in no state; from that host and from no other.
clean_host() {
  if [ ! -s "$ssh/config" ]; then write_ssh_config; fi
  {
    echo "if [ \"\$(cat /etc/machine-id)\" != '$LAB_GENERATION' ]; then echo 'warning: another host answers at the address of $name, and was left alone'; exit; fi"
    echo "if [ ! -e /opt/k3s-lab ]; then exit; fi"
    echo "exec sudo bash -s"
    echo "LAB_OWNER='$id/$LAB_STACK'"
    cat "$K3S_LAB_ROOT/vagrant/provision/common.sh" "$K3S_LAB_ROOT/vagrant/provision/uninstall.sh"
  } | ask_host || echo "warning: $name does not answer, and was left as it is"
}

case "$1" in
up | update)
  write_ssh_config
  if [ "$LAB_PROVIDER" = hosts ]; then meet_host; else bring_up; fi
  ;;
find)
  find_machine
  if [ "$found" != other ]; then echo "$found"; fi
  ;;
destroy)
  if [ "$LAB_PROVIDER" = hosts ]; then
    clean_host
  else
    find_machine
    case "$LAB_PROVIDER=$found" in
    *= | *=other) ;;
    docker=*) remove_containers ;;
    libvirt=*) remove_domain "$machine" ;;
    virtualbox=*) vagrant destroy --force "$name" --no-color ;;
    esac
    if [ "$LAB_PROVIDER" = docker ]; then remove_networks; fi
  fi
  rm -rf "$VAGRANT_DOTFILE_PATH/machines/$name" "$lab/machines/$name.slowness" "$ssh"
  # The folder says that machines exist: with the last one it goes.
  rmdir "$lab/machines" 2>/dev/null || true
  ;;
*)
  echo "machine.sh: unknown action '$1': up, update, destroy, find or remove-leftovers" >&2
  exit 2
  ;;
esac
