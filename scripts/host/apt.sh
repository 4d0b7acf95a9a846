#!/bin/sh
# Runs apt-get as root, asking nothing: apt.sh services | no-services ARGUMENT...
#   no-services  packages start no services meanwhile, as where no systemd runs them
# dpkg asks /usr/sbin/policy-rc.d whether a package may start its services; 101 is no (invoke-rc.d(8)). The one written here
# says no while this very apt-get runs and takes itself away afterwards, however that ended. One of somebody else's stays.
# Calling it with no ARGUMENT takes away one that was left.
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
  # This process becomes apt-get. A process is its id and its start, the 22nd field, counted after its name (proc(5)).
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
