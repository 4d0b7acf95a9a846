#!/bin/sh
# Drives one machine for Pulumi: machine.sh up | update | destroy; and machine.sh sweep for what no state knows of
#   K3S_LAB_ROOT    the checkout
#   LAB_STACK       the stack that the machine belongs to
#   LAB_MACHINE     the machine as JSON, as it was when Pulumi recorded it; the Vagrantfile takes it over the stack file
#   LAB_PROVIDER    docker | libvirt | virtualbox, which are Vagrant's; or hosts: the machine is there already
#   LAB_GENERATION  names this making of the machine, LAB_BOOT this start of it; stacks/observe.ts reads them back
#   stdin           up, update: the machine's ssh configuration
set -eu

lab="$K3S_LAB_ROOT/.lab/$LAB_STACK"
export VAGRANT_CWD="$K3S_LAB_ROOT/vagrant" VAGRANT_DOTFILE_PATH="$lab/vagrant"

# containers [FILTER...]: the ids of this checkout's machines in containers.
containers() {
  docker ps --all --quiet --filter "label=k3s-lab.checkout=$K3S_LAB_ROOT" --filter "label=k3s-lab.stack=$LAB_STACK" "$@"
}

virsh() { command virsh --connect qemu:///system --quiet "$@" </dev/null; }

# The names of this checkout's machines in libvirt; without a libvirt there are none.
domains() {
  virsh list --all --name 2>/dev/null | grep "^k3s-lab-$LAB_STACK-" | while read -r domain; do
    if [ "$(virsh desc "$domain")" = "$K3S_LAB_ROOT" ]; then echo "$domain"; fi
  done
}

# forget DOMAIN: removes a machine and its disk, as far as they are there.
forget() {
  virsh destroy "$1" >/dev/null 2>&1 || true
  virsh undefine "$1" >/dev/null 2>&1 || true
  virsh vol-delete --pool k3s-lab "$1.img" >/dev/null 2>&1 || true
}

# An interrupted `vagrant up` can leave behind a machine whose id it has not written down; nobody else would remove it.
if [ "$1" = sweep ]; then
  case "$LAB_PROVIDER" in
  docker) ;;
  libvirt)
    domains | while read -r domain; do forget "$domain"; done
    rm -rf "$VAGRANT_DOTFILE_PATH/machines" "$lab/machines"
    exit
    ;;
  *) exit ;;
  esac
  for id in $(containers); do docker rm --force --volumes "$id"; done
  docker network ls --quiet --filter "name=vagrant_network_" | while read -r network; do
    # Docker refuses to remove a network that is in use.
    docker network rm "$network" >/dev/null 2>&1 || true
  done
  rm -rf "$VAGRANT_DOTFILE_PATH/machines" "$lab/machines"
  exit
fi

field() { printf '%s' "$LAB_MACHINE" | sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }
name=$(field name)
notes="$lab/machines/$name"
ssh="$K3S_LAB_ROOT/.lab/ssh/$name.$LAB_STACK"

note() {
  mkdir -p "$lab/machines"
  printf '%s' "$LAB_GENERATION" >"$notes.generation"
  printf '%s' "$LAB_BOOT" >"$notes.boot"
}

write_ssh_config() {
  mkdir -p "$ssh"
  cat >"$ssh/config"
}

start() { vagrant up "$name" --provider "$LAB_PROVIDER" --no-provision --no-color; }

# Looks a host over, as root there; changes nothing on it. What ssh says is put into words with the next step.
look_over() {
  shown=$([ -s "$ssh/known_hosts" ] || echo yes)
  id=$("$K3S_LAB_ROOT/vagrant/provision/token.sh" "$lab/token" | sha256sum | cut -d ' ' -f 1)
  if ! said=$(ssh -F "$ssh/config" "$name.$LAB_STACK" NODE_IP="$(field ip)" NODE_INTERFACE="'$(field interface)'" \
    CLUSTER_ID="$id" bash -s <"$K3S_LAB_ROOT/vagrant/provision/look-over.sh" 2>&1); then
    where=$(ssh -G -F "$ssh/config" "$name.$LAB_STACK" | awk '/^(user|hostname|port) / { v[$1] = $2 } END { print v["user"] "@" v["hostname"] " port " v["port"] }')
    case "$said" in
    *"look-over.sh: "*) reason=$(printf '%s\n' "$said" | sed -n 's/^look-over.sh: //p') ;;
    *"Host key verification failed"* | *"HOST IDENTIFICATION HAS CHANGED"*)
      reason="its host key is not the one that is expected: another machine answers there, or it was installed anew. If that is so, remove $ssh/known_hosts, or set its ssh.hostKey in the stack file" ;;
    *"Permission denied"*)
      reason="it does not let you in with this key: add the public key to ~/.ssh/authorized_keys there, or set ssh.user and ssh.key in the stack file" ;;
    *) reason="it cannot be reached: $(printf '%s\n' "$said" | tail -n 1)" ;;
    esac
    echo "the host $name ($where): $reason" >&2
    exit 1
  fi
  if [ -s "$ssh/known_hosts" ]; then
    if [ "$shown" ]; then echo "the host key of $name is noted: $(ssh-keygen -l -f "$ssh/known_hosts" | head -n 1)"; fi
  else
    echo "# the host key of $name is in the stack file" >"$ssh/known_hosts"
  fi
}

# Removes what an interrupted `vagrant up` left of this machine in libvirt: Vagrant stumbles over its name.
forget_unknown() {
  if [ "$LAB_PROVIDER" != libvirt ] || [ -s "$VAGRANT_DOTFILE_PATH/machines/$name/libvirt/id" ]; then return; fi
  domain="k3s-lab-$LAB_STACK-$name"
  other=$(virsh desc "$domain" 2>/dev/null || true)
  if [ -n "$other" ] && [ "$other" != "$K3S_LAB_ROOT" ]; then
    echo "machine.sh: the machine $name of $other is in the way: run scripts/lab down there, or virsh undefine $domain" >&2
    exit 1
  fi
  forget "$domain"
}

case "$1" in
up)
  write_ssh_config
  if [ "$LAB_PROVIDER" = docker ] && [ ! -s "$VAGRANT_DOTFILE_PATH/machines/$name/docker/id" ]; then
    for id in $(containers --filter "name=^k3s-lab-$LAB_STACK-$name\$"); do docker rm --force --volumes "$id"; done
    other=$(docker ps --all --filter "name=^k3s-lab-$LAB_STACK-$name\$" --format '{{.Label "k3s-lab.checkout"}}')
    if [ -n "$other" ]; then
      echo "machine.sh: the machine $name of $other is in the way: run scripts/lab down there, or docker rm --force k3s-lab-$LAB_STACK-$name" >&2
      exit 1
    fi
  fi
  forget_unknown
  if [ "$LAB_PROVIDER" = hosts ]; then
    look_over
  else
    # A machine made anew has a new host key.
    rm -f "$ssh/known_hosts"
    start
  fi
  note
  ;;
update)
  write_ssh_config
  case "$LAB_PROVIDER" in
  docker)
    start
    docker update --cpus "$(field cpus)" --memory "$(field memory)m" --memory-swap "$(field memory)m" \
      "$(cat "$VAGRANT_DOTFILE_PATH/machines/$name/docker/id")"
    ;;
  hosts) look_over ;;
  *) vagrant reload "$name" --no-provision --no-color ;;
  esac
  note
  ;;
destroy)
  if [ "$LAB_PROVIDER" = hosts ]; then
    # What an interrupted installation brought is in no state.
    ssh -F "$ssh/config" "$name.$LAB_STACK" 'test ! -e /opt/k3s-lab || sudo bash -s' \
      <"$K3S_LAB_ROOT/vagrant/provision/uninstall.sh" || echo "$name does not answer"
  else
    forget_unknown
    vagrant destroy --force "$name" --no-color
  fi
  rm -rf "$notes.generation" "$notes.boot" "$notes.slowness" "$ssh"
  # The folder says that machines exist: with the last one it goes.
  rmdir "$lab/machines" 2>/dev/null || true
  ;;
*)
  echo "machine.sh: unknown action '$1': up, update or destroy" >&2
  exit 2
  ;;
esac
