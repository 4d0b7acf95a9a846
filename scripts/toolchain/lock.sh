#!/bin/sh
# lock.sh FILE WHO: prints a line once it has the lock, and holds it while its standard input is open. The kernel releases it
# however this script and its caller end. WHO is written into the file for waiting runs. macOS has no flock, but Perl.
PATH=$PATH:/usr/bin:/bin
# shellcheck disable=SC3013 # dash, bash and BusyBox have it
until [ "$1" -ef /dev/fd/9 ]; do # whoever had the lock has taken the file away
  # Another user's file in a shared cache may be read-only, which is enough.
  if [ -e "$1" ] && [ ! -w "$1" ]; then exec 9<"$1"; else exec 9>>"$1"; fi || exit
  if command -v flock >/dev/null; then
    flock 9
  else
    perl -MFcntl=:flock -e 'open my $f, ">&=", 9; exit !flock $f, LOCK_EX'
  fi || exit
done
(echo "$2" >"$1") 2>/dev/null
echo
exec cat >/dev/null
