#!/bin/bash
# Removes K3s from this machine by K3s's own scripts. Run as root; does nothing where K3s is not installed.
set -euo pipefail
for script in k3s-agent-uninstall.sh k3s-uninstall.sh; do
  if [ -x /usr/local/bin/$script ]; then /usr/local/bin/$script; fi
done
