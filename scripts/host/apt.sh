#!/bin/sh
# Runs apt-get as root without questions: apt.sh services | no-services ARGUMENT...
#   no-services  packages start no services meanwhile, as without systemd
# dpkg asks /usr/sbin/policy-rc.d whether a package may start its services; 101 means no (invoke-rc.d(8)). The one written here
# says no while this apt-get runs and then removes itself, however that ended. Somebody else's stays.
# Without ARGUMENT, removes one that was left behind.
set -eu

policy=${POLICY:-/usr/sbin/policy-rc.d}
mark='# k3s-lab: no service is started while apt-get of the lab runs'
services=$1
shift

is_ours() { [ -f "$policy" ] && grep -qxF "$mark" "$policy"; }

if [ $# -eq 0 ]; then
  if is_ours; then sh "$policy" || true; fi
  exit
fi

if [ "$services" = no-services ] && { [ ! -e "$policy" ] || is_ours; }; then
  # This process becomes apt-get. It is identified by its pid and start time, field 22, counted after its name (proc(5)).
  started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }
  cat >"$policy.$$" <<POLICY
#!/bin/sh
$mark
if [ "\$(sed 's/.*) //' /proc/$$/stat 2>/dev/null | cut -d ' ' -f 20)" = "$(started $$)" ]; then exit 101; fi
rm -f "$policy"
POLICY
  chmod 0755 "$policy.$$"
  mv "$policy.$$" "$policy"
fi

# needrestart, which Ubuntu has, would ask which services to restart.
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l LC_ALL=C
unset LANGUAGE
exec apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
