#!/bin/bash
# HAProxy in front of a cluster's nodes, on a separate machine. Run as root.
#
#   load-balancer.sh install    returns once it forwards connections; a running one takes a new configuration without ending any
#   load-balancer.sh remove     if it is this lab's
#   load-balancer.sh observe    changes nothing; prints "state healthy", or in a few words what differs from `install`
#
#   CONFIG       install: HAProxy's configuration, in base64
#   LAB_OWNER    install, remove: the lab and stack that own it; empty: any
#
# It has its own unit and folder: Debian's haproxy.service and /etc/haproxy may be somebody else's, and stay.
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

readonly service=k3s-lab-load-balancer folder=/etc/k3s-lab-load-balancer
readonly file=$folder/haproxy.cfg unit=/etc/systemd/system/$service.service
readonly taken_within=20 # seconds

die() {
  echo "load-balancer.sh: $*" >&2
  exit 1
}

get_haproxy() {
  if command -v haproxy >/dev/null; then return; fi
  command -v apt-get >/dev/null || die "HAProxy is not installed, and there is no apt to install it: install it, then run the same command again"
  { apt-get update --quiet && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-remove --no-install-recommends -o Dpkg::Options::=--force-confold haproxy; } >&2 ||
    die "apt could not install haproxy; its output is above. Install it, then run the same command again"
  systemctl disable --quiet --now haproxy
}

# The serving processes, each with the configuration that it started with.
workers() { cat "/proc/$(systemctl show --property MainPID --value $service)/task"/*/children 2>/dev/null || true; }

# reload: 1 if HAProxy keeps its old configuration, for example because of a port in use. systemd does not report that.
reload() {
  local before deadline worker
  before=" $(workers | tr '\n' ' ') "
  systemctl reload $service || return 1
  # Not every kernel reports it.
  if [ -z "${before// /}" ]; then return 0; fi
  deadline=$((SECONDS + taken_within))
  while [ $SECONDS -lt $deadline ]; do
    for worker in $(workers); do
      case $before in *" $worker "*) ;; *) return 0 ;; esac
    done
    sleep 0.2
  done
  return 1
}

fingerprint() { cat $file $unit 2>/dev/null | sha256sum | cut -c 1-32; }
is_active() { systemctl is-active --quiet $service; }

is_ours() {
  local owner
  owner=$(cat $folder/lab 2>/dev/null || true)
  [ -z "$owner" ] || [ -z "${LAB_OWNER:-}" ] || [ "$owner" = "$LAB_OWNER" ]
}

write_unit() {
  cat >$unit <<END
[Unit]
Description=Load balancer of the K3s lab
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
RuntimeDirectory=$service
ExecStart=$(command -v haproxy) -Ws -f $file
ExecReload=$(command -v haproxy) -c -q -f $file
ExecReload=/bin/kill -USR2 \$MAINPID
KillMode=mixed
TimeoutStopSec=5
Restart=always
RestartSec=1
# Twice the number of concurrent connections; HAProxy uses as many as the machine allows.
LimitNOFILE=200000

[Install]
WantedBy=multi-user.target
END
}

install_it() {
  is_ours || die "the load balancer of another lab is on this machine: take it down there first, or choose another machine"
  if [ -e /usr/local/bin/k3s ]; then
    die "K3s is on this machine and would use the same ports: remove the machine from the stack file, run the same command, then add it as the load balancer"
  fi
  get_haproxy
  mkdir -p $folder
  # If a run is interrupted after this, its work is known to be unfinished.
  rm -f $folder/installed
  if [ -n "${LAB_OWNER:-}" ]; then echo "$LAB_OWNER" >$folder/lab; fi
  printf %s "$CONFIG" | base64 -d >$file.new
  haproxy -c -q -f $file.new || die "HAProxy rejects its configuration, and nothing was changed; its output is above"
  local was_active=
  if is_active; then was_active=yes; fi
  if [ -e $unit ]; then cp $file $file.old && cp $unit $folder/unit.old; else rm -f $folder/*.old; fi
  mv $file.new $file
  write_unit
  systemctl daemon-reload
  if [ "$was_active" ] && cmp -s $unit $folder/unit.old; then reload; else systemctl restart $service; fi ||
    put_back "$was_active"
  # Only now: a HAProxy that cannot start must not take a port when its machine boots.
  systemctl enable --quiet $service
  rm -f $folder/*.old
  fingerprint >$folder/installed
}

# put_back WAS_ACTIVE: restores what existed before a change that HAProxy rejected, and exits.
put_back() {
  local port="Another program may have one of its ports: ss -ltnp"
  journalctl --no-pager --lines 10 --unit $service >&2 || true
  if [ ! -e $folder/unit.old ]; then
    systemctl stop $service || true
    rm -f $unit
    systemctl daemon-reload
    die "HAProxy does not start; its last lines are above. $port"
  fi
  mv $file.old $file
  mv $folder/unit.old $unit
  systemctl daemon-reload
  if [ -z "$1" ]; then
    systemctl stop $service || true
    die "HAProxy does not start; its last lines are above. $port"
  fi
  is_active || systemctl restart $service || die "HAProxy no longer starts; its last lines are above. $port"
  die "HAProxy did not start with its new configuration and runs with the previous one; its last lines are above. $port"
}

remove() {
  if [ ! -e $folder ] && [ ! -e $unit ]; then return; fi
  if ! is_ours; then
    echo "warning: the load balancer on this machine is another lab's: it stays"
    return
  fi
  systemctl disable --quiet --now $service 2>/dev/null || true
  rm -rf $unit $folder
  systemctl daemon-reload
}

state() {
  if [ ! -e $unit ]; then
    echo "HAProxy is not installed"
  elif [ ! -e $folder/installed ]; then
    echo "HAProxy's last change was not finished"
  elif [ "$(fingerprint)" != "$(cat $folder/installed)" ]; then
    echo "HAProxy's configuration was changed there"
  elif ! is_active; then
    echo "HAProxy is stopped"
  elif ! systemctl is-enabled --quiet $service; then
    echo "HAProxy does not start with its machine"
  else
    echo healthy
  fi
}

case "$1" in
install) install_it ;;
remove) remove ;;
observe) echo "state $(state)" ;;
*) die "unknown action '$1': install, remove or observe" ;;
esac
