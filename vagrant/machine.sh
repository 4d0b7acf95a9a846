#!/bin/sh
# Drives one machine for Pulumi: machine.sh up | update | destroy; and machine.sh sweep for what no state knows of
#   K3S_LAB_ROOT    the checkout
#   LAB_STACK       the stack that the machine belongs to
#   LAB_MACHINE     the machine as JSON, as it was when Pulumi recorded it; the Vagrantfile takes it over the stack file
#   LAB_PROVIDER    docker | libvirt | virtualbox
#   LAB_GENERATION  names this making of the machine, LAB_BOOT this start of it; stacks/observe.ts reads them back
set -eu

lab="$K3S_LAB_ROOT/.lab/$LAB_STACK"
export VAGRANT_CWD="$K3S_LAB_ROOT/vagrant" VAGRANT_DOTFILE_PATH="$lab/vagrant"

# containers [FILTER...]: the ids of this checkout's machines in containers.
containers() {
  docker ps --all --quiet --filter "label=k3s-lab.checkout=$K3S_LAB_ROOT" --filter "label=k3s-lab.stack=$LAB_STACK" "$@"
}

# An interrupted `vagrant up` can leave behind a container whose id it has not written down; nobody else would remove it.
if [ "$1" = sweep ]; then
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

note() {
  mkdir -p "$lab/machines"
  printf '%s' "$LAB_GENERATION" >"$notes.generation"
  printf '%s' "$LAB_BOOT" >"$notes.boot"
}

start() { vagrant up "$name" --provider "$LAB_PROVIDER" --no-provision --no-color; }

case "$1" in
up)
  if [ "$LAB_PROVIDER" = docker ] && [ ! -s "$VAGRANT_DOTFILE_PATH/machines/$name/docker/id" ]; then
    for id in $(containers --filter "name=^k3s-lab-$LAB_STACK-$name\$"); do docker rm --force --volumes "$id"; done
    other=$(docker ps --all --filter "name=^k3s-lab-$LAB_STACK-$name\$" --format '{{.Label "k3s-lab.checkout"}}')
    if [ -n "$other" ]; then
      echo "machine.sh: the machine $name of $other is in the way: run scripts/lab down there, or docker rm --force k3s-lab-$LAB_STACK-$name" >&2
      exit 1
    fi
  fi
  # A machine made anew has a new host key.
  rm -f "$K3S_LAB_ROOT/.lab/ssh/known_hosts.$(field ip)"
  start
  note
  ;;
update)
  if [ "$LAB_PROVIDER" = docker ]; then
    start
    docker update --cpus "$(field cpus)" --memory "$(field memory)m" --memory-swap "$(field memory)m" \
      "$(cat "$VAGRANT_DOTFILE_PATH/machines/$name/docker/id")"
  else
    vagrant reload "$name" --no-provision --no-color
  fi
  note
  ;;
destroy)
  vagrant destroy --force "$name" --no-color
  rm -f "$notes.generation" "$notes.boot"
  # The folder says that machines exist: with the last one it goes.
  rmdir "$lab/machines" 2>/dev/null || true
  ;;
*)
  echo "machine.sh: unknown action '$1': up, update or destroy" >&2
  exit 2
  ;;
esac
