#!/bin/sh
# Drives one machine: machine.sh up | update | destroy for Pulumi; find for the Vagrantfile, which prints the provider's id of
# an existing machine; and machine.sh remove-leftovers for machines that are in no state
#   K3S_LAB_ROOT    the checkout; its .lab/id marks its machines
#   LAB_STACK       the stack that the machine belongs to
#   LAB_PROVIDER    docker | libvirt | virtualbox, which are Vagrant's; or hosts: the machine already exists
#   LAB_MACHINE     the machine as JSON, as Pulumi recorded it; the Vagrantfile prefers it to the stack file
#   LAB_NETWORK     the machines' network, such as 192.168.42.0/24
#   LAB_GENERATION  identifies the machine's creation and is recorded on it; for a host, its /etc/machine-id
#   stdin           up, update: the machine's ssh configuration
#
# A machine is ours if it carries the lab's id and the stack, both complete. Nothing else is changed or removed. A machine is
# absent only if its provider returns a list without it: a failed query ends this script.
set -eu

lab="$K3S_LAB_ROOT/.lab/$LAB_STACK"
id=$(cat "$K3S_LAB_ROOT/.lab/id")
export VAGRANT_CWD="$K3S_LAB_ROOT/vagrant" VAGRANT_DOTFILE_PATH="$lab/vagrant"

die() {
  echo "machine.sh: $*" >&2
  exit 1
}

# Both translate their output.
virsh() { LC_ALL=C command virsh --connect qemu:///system --quiet "$@" </dev/null; }
VBoxManage() { LC_ALL=C command VBoxManage "$@" </dev/null; }

# containers [FILTER...]: the ids of this lab's containers, without those that a user started from a commit of a machine, whose
# labels come from that image.
containers() {
  own=$(docker ps --all --no-trunc --quiet --filter "label=k3s-lab.id=$id" "$@") || return
  if [ -z "$own" ]; then return; fi
  images=$(docker image ls --all --no-trunc --quiet --filter label=k3s-lab.id) || return
  if [ -n "$images" ]; then
    # shellcheck disable=SC2046,SC2086 # an option for each
    copies=$(docker ps --all --no-trunc --quiet $(printf -- '--filter ancestor=%s ' $images)) || return
    own=$(printf '%s\n' "$own" | grep -Fxv "${copies:-none}" || true)
  fi
  printf '%s\n' "$own" | sed '/^$/d'
}
of_stack="label=k3s-lab.stack=$LAB_STACK"

# whose MARKS ID: for a machine with our name: its ID if its marks, one per word or line, are this stack's; "lost=…" with its
# lab id if it is the recorded machine, because .lab/id has changed then; else "other".
whose() {
  marks=" $(printf '%s' "$1" | tr '\n' ' ') "
  case "$marks" in
  *" k3s-lab.id=$id "*"k3s-lab.stack=$LAB_STACK "*) echo "$2" ;;
  *" k3s-lab.generation=${LAB_GENERATION:-none} "*) printf '%s\n' "$marks" | tr ' ' '\n' | sed -n 's/^k3s-lab\.id=/lost=/p' ;;
  *) echo other ;;
  esac
}

# The names of our domains. Without libvirt there are none. A clone has the marks too, but another name.
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

# remove_domain DOMAIN: removes one of our domains and its disk.
remove_domain() {
  if [ "$(virsh domstate "$1")" != "shut off" ]; then virsh destroy "$1" >/dev/null; fi
  virsh undefine "$1" >/dev/null
  virsh vol-delete --pool k3s-lab "$1.img" >/dev/null 2>&1 || true
}

# Vagrant would remove all of its unused networks, including other projects'.
remove_containers() { for container in $found; do docker rm --force --volumes "$container" >/dev/null; done; }

# Removes our networks with our last machine: a stopped machine, which Docker does not count, needs its network too. Networks
# of k3d's clusters carry their stack's name and are not machines'.
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

# An interrupted run can leave a machine that is in no state, and nothing else would remove it.
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
# The provider's id in Vagrant's notes.
note="$VAGRANT_DOTFILE_PATH/machines/$name/$LAB_PROVIDER/id"
noted=$(cat "$note" 2>/dev/null || true)

write_ssh_config() {
  mkdir -p "$ssh" "$lab/machines"
  cat >"$ssh/config"
  host_key=$(field hostKey)
  if [ -n "$host_key" ]; then printf '%s %s\n' "$alias" "$host_key" >"$ssh/known_hosts"; fi
}

# find_PROVIDER: the provider's id of our machine; nothing if it is absent, else the result of `whose`.
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
    # Its disk keeps the name that a new machine's disk would get.
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
    # Vagrant sets the name and the marks only after it has created the machine.
    if [ -n "$renamed" ] && VBoxManage getextradata "$noted" enumerate | grep -q '^Key: k3s-lab\.machine,'; then die "VirtualBox now calls the machine $name $renamed: it was renamed. Rename it back: VBoxManage modifyvm '$renamed' --name $machine"; fi
    unread="\"<inaccessible>\" {$noted}"
    if printf '%s\n' "$all" | grep -Fqx "$unread"; then die "VirtualBox cannot read the files of the machine $name: $unread. Mount the disk that holds them, then run the same command again"; fi
    return
  fi
  data=$(VBoxManage getextradata "$uuid" enumerate)
  data=$(printf '%s\n' "$data" | sed -n 's/^Key: \(k3s-lab\.[a-z]*\), Value: \(.*\)$/\1=\2/p')
  # An interrupted Vagrant has created it but not marked it.
  if [ -z "$data" ] && [ "$noted" = "$uuid" ]; then echo "$uuid"; else whose "$data" "$uuid"; fi
}

# A machine that answers with the recorded host key runs, whatever the list says: another user or another daemon has it.
refuse_out_of_sight() {
  [ -s "$ssh/known_hosts" ] || return 0
  if ssh -o StrictHostKeyChecking=yes -o ConnectTimeout=5 -o ConnectionAttempts=1 -F "$ssh/config" "$alias" true </dev/null >/dev/null 2>&1; then
    die "$LAB_PROVIDER lists no machine $name of this lab, but it answers over ssh: it runs where this list does not show it. Run the same command as the user, and with the Docker daemon (DOCKER_HOST), that created it"
  fi
}

# find_machine: sets `found` and restores Vagrant's note of the machine, without which it would create another.
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

# has_size CPUS MEMORY: whether these are the machine's wanted size; memory in MiB.
has_size() { [ "$1" = "$(field cpus)" ] && [ "$2" = "$(field memory)" ]; }

# The id of the Docker network with the machines' addresses, whoever created it.
network_of_machines() {
  all=$(docker network ls --quiet --no-trunc)
  for one in $all; do
    subnet=$(docker network inspect --format '{{range .IPAM.Config}}{{.Subnet}}{{end}}' "$one")
    if [ "$subnet" = "$LAB_NETWORK" ]; then echo "$one"; fi
  done
}

# resume_PROVIDER ID: makes an existing machine run, in its network and with its size. Does nothing if it already does.
resume_docker() {
  network=$(network_of_machines)
  if [ -z "$network" ]; then
    # `docker network prune` removes networks that no running machine uses.
    network=$(docker network create --label "k3s-lab.id=$id" --subnet "$LAB_NETWORK" "vagrant_network_$LAB_NETWORK")
  fi
  case "$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.NetworkID}} {{end}}' "$1")" in
  *"$network"*) ;;
  *)
    # In a running container the new interface would be eth2, and K3s keeps using the old one.
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

# Waits until a started machine answers ssh; an emulated CPU is slow.
wait_for_ssh() {
  seconds=900 attempts=3 # between which ssh waits
  if [ "$LAB_PROVIDER" = docker ]; then seconds=120 attempts=1; fi
  deadline=$(($(date +%s) + seconds))
  until said=$(ssh -o ConnectionAttempts=$attempts -F "$ssh/config" "$alias" true </dev/null 2>&1 >/dev/null); do
    sleep 0.1
    if [ "$(date +%s)" -ge "$deadline" ]; then die "the machine $name runs but does not answer ssh after $seconds s: $said"; fi
  done
}

# Docker treats a limit above the available CPUs as no limit.
say_cpus() {
  have=$(docker info --format '{{.NCPU}}')
  if [ "$(field cpus)" -gt "$have" ]; then echo "warning: $name asks for $(field cpus) CPUs, but Docker has only $have"; fi
}

# A user may have defined another machine with the disk that would be recreated.
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
    # A new machine has a new host key.
    rm -f "$ssh/known_hosts"
    # Vagrant has a note, but libvirt has no such machine: its removal was interrupted before its disk was deleted.
    if [ "$LAB_PROVIDER" = libvirt ] && [ -n "$noted" ]; then
      refuse_used_disk
      virsh vol-delete --pool k3s-lab "$machine.img" >/dev/null 2>&1 || true
    fi
    start
    # The Vagrantfile keeps Vagrant from waiting.
    if [ "$LAB_PROVIDER" = docker ]; then wait_for_ssh; fi
  fi
}

# ask_host: runs the script on standard input there with bash, whatever the user's login shell is.
ask_host() { ssh -F "$ssh/config" "$alias" bash -s; }

# Makes sure that the host is the one that the program checked; the first contact records its host key.
meet_host() {
  shown=$([ -s "$ssh/known_hosts" ] || echo yes)
  said=$(echo 'sed s/^/machine-id=/ /etc/machine-id' | ask_host 2>&1) || die "the host $name cannot be reached: $(printf '%s\n' "$said" | tail -n 1)"
  case "$said" in
  *"machine-id=$LAB_GENERATION"*) ;;
  *) die "another host answers now as $name: its /etc/machine-id is not $LAB_GENERATION. Run the same command again" ;;
  esac
  if [ "$shown" ]; then echo "recorded the host key of $name: $(ssh-keygen -l -f "$ssh/known_hosts" | head -n 1)"; fi
}

# Removes what an interrupted installation left, which is in no state; only from this host.
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
  # The folder shows that machines exist: remove it with the last one.
  rmdir "$lab/machines" 2>/dev/null || true
  ;;
*)
  echo "machine.sh: unknown action '$1': up, update, destroy, find or remove-leftovers" >&2
  exit 2
  ;;
esac
