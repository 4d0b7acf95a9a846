#!/bin/sh
# token.sh FILE: prints a stack's secret, such as the token that joins nodes; creates the file, mode 0600, if it does not exist.
set -eu
umask 077
if [ ! -e "$1" ]; then
  mkdir -p "$(dirname "$1")"
  new=$(mktemp "$1.XXXXXX")
  trap 'rm -f "$new"' EXIT
  head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$new"
  # Only a complete token gets the file's name, and the first of several callers wins: all print the same.
  [ "$(wc -c <"$new")" -eq 64 ]
  ln "$new" "$1" 2>/dev/null || [ -s "$1" ]
fi
if [ ! -s "$1" ]; then
  echo "token.sh: $1 is empty: put back what was in it (servers have their cluster's token in /etc/rancher/k3s/token, and passwords are in the cluster's Secrets); where nothing of this stack exists yet, remove it" >&2
  exit 1
fi
# Programs that read the first line and programs that read the whole file must get the same.
if [ "$(grep -c '' "$1")" -ne 1 ] || grep -q "$(printf '\r')" "$1"; then
  echo "token.sh: $1 must be one line of text, with nothing below it and no carriage return: that line is the secret" >&2
  exit 1
fi
cat "$1"
