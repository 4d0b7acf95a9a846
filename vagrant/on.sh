#!/bin/sh
# Sourced by other scripts: on MACHINE.STACK COMMAND... runs a command on a machine, through the configuration that machine.sh
# wrote. Input, output and status are the command's own, whatever the user's login shell is and whatever it prints first: it
# is only asked to start sh, in a syntax that bash, zsh, fish and csh share.
on() {
  alias="$1"
  shift
  coded=$(printf '%s' "$*" | base64 | tr -d '\n')
  exec 4>&1
  on_status=$({
    {
      on_status=0
      ssh -F "$K3S_LAB_ROOT/.lab/ssh/$alias/config" "$alias" \
        "exec sh -c 'echo; echo k3s-lab-begins; eval \"\$(echo $coded | base64 -d)\"'" || on_status=$?
      echo "$on_status" >&3
    } | sed '1,/^k3s-lab-begins$/d' >&4
  } 3>&1)
  exec 4>&-
  return "$on_status"
}

# is_reachable MACHINE.STACK: whether a machine answers ssh; does not wait for a lost one.
is_reachable() {
  ssh -F "$K3S_LAB_ROOT/.lab/ssh/$1/config" -o ConnectTimeout=5 -o ConnectionAttempts=1 "$1" true </dev/null 2>/dev/null
}
