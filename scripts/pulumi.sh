#!/bin/sh
# Wrapper for Pulumi, linked as `.lab/bin/pulumi`. When it runs, Pulumi writes an `encryptionsalt` into the stack's
# configuration and reformats the file (GetSecretsManager and getAndSaveSecretsManager in its pkg/cmd/pulumi). So it
# gets a copy, and a run never changes the user's file. `pulumi config set` and the like still write to it.
set -eu

# The lab cannot read compressed state.
unset PULUMI_DIY_BACKEND_GZIP PULUMI_SELF_MANAGED_STATE_GZIP PULUMI_DIY_BACKEND_ZSTD

lab=$(CDPATH='' cd -P "${0%/*}/.." && pwd)
root=${lab%/.lab}
pulumi=$lab/pulumi/bin/pulumi
if [ ! -x "$pulumi" ]; then
  echo "pulumi is not installed for this lab: run scripts/lab up, or scripts/lab tools install" >&2
  exit 127
fi

# Like refuseCopy in stacks/lib/lab-id.ts.
folder=$(cat "$lab/folder" 2>/dev/null) || folder=$root
other=$folder/.lab/id
# shellcheck disable=SC3013 # dash, bash, BusyBox and macOS know -ef
if [ "$folder" != "$root" ] && cmp -s "$other" "$lab/id" && ! [ "$other" -ef "$lab/id" ]; then
  echo "This folder is a copy of $folder, whose lab has the same id: lab down in one would remove the other's machines. Nothing was touched. To give this folder a lab of its own, remove $lab; to keep using that lab from here, remove $folder/.lab." >&2
  exit 2
fi

# The command, its subcommand, and its stack.
verb='' second='' third='' stack='' next='' given=''
for argument; do
  case $next in
    stack) stack=$argument next='' && continue ;;
    skip) next='' && continue ;;
  esac
  case $argument in
    # Another project or an explicit configuration; and help needs no stack.
    -C | --cwd | --cwd=* | --config-file | --config-file=* | --help | -h) given=yes ;;
    --stack | -s) next=stack ;;
    --stack=*) stack=${argument#--stack=} ;;
    -s?*) stack=${argument#-s} ;;
    --color | -v | --verbose | --tracing | --profiling | --memprofilerate) next=skip ;;
    -*) ;;
    *)
      if [ -z "$verb" ]; then
        verb=$argument
      elif [ -z "$second" ]; then
        second=$argument
      elif [ -z "$third" ]; then
        third=$argument
      fi
      ;;
  esac
done
[ -z "$given" ] || exec "$pulumi" "$@"

# elsewhere ARGUMENT...: runs Pulumi in a folder with the same project and no stack files of the user's.
elsewhere() {
  folder=$lab/pulumi/project
  mkdir -p "$folder"
  rm -f "$folder/Pulumi.${stack##*/}.yaml"
  printf 'name: k3s-lab\nruntime: nodejs\nbackend:\n  url: file://%s/state\n' "$lab" >"$folder/Pulumi.yaml.$$"
  mv "$folder/Pulumi.yaml.$$" "$folder/Pulumi.yaml"
  "$pulumi" --cwd "$folder" "$@"
}

case $verb in
  stack)
    case $second in
      init | new)
        stack=${stack:-$third}
        [ -n "$stack" ] || exec "$pulumi" "$@"
        elsewhere "$@"
        exec "$pulumi" stack select "$stack"
        ;;
      select)
        stack=${stack:-$third}
        case " $* " in
          *" --create "* | *" -c "*) [ -n "$stack" ] || exec "$pulumi" "$@" ;;
          *) exec "$pulumi" "$@" ;;
        esac
        elsewhere "$@"
        exec "$pulumi" stack select "$stack"
        ;;
      history)
        [ -n "$stack" ] || exec "$pulumi" "$@"
        elsewhere "$@"
        exit
        ;;
      # Otherwise it would delete the user's file too.
      rm | remove) exec "$pulumi" "$@" --preserve-config ;;
    esac
    exec "$pulumi" "$@"
    ;;
  up | update | preview | pre | refresh | import | watch | logs) ;;
  # Destroying needs only the state: the stack file may be missing or invalid.
  destroy | down | dn) case " $* " in *" --run-program"*) verb=up ;; *) verb=destroy ;; esac ;;
  config) case $second in '' | get) ;; *) exec "$pulumi" "$@" ;; esac ;;
  *) exec "$pulumi" "$@" ;;
esac

[ -n "$stack" ] || stack=$("$pulumi" stack --show-name 2>/dev/null) || exec "$pulumi" "$@"
name=${stack##*/}
copy=$lab/$name/config.yaml
(
  umask 077
  mkdir -p "$lab/$name"
  if [ "$verb" != destroy ] && [ -f "$root/Pulumi.$name.yaml" ]; then
    # A salt from another Pulumi belongs to another passphrase.
    sed "/^[\"']\{0,1\}encryptionsalt[\"']\{0,1\}:/d" "$root/Pulumi.$name.yaml" >"$copy.$$"
  else
    echo 'config: {}' >"$copy.$$"
  fi
  mv "$copy.$$" "$copy"
)
exec "$pulumi" "$@" --config-file "$copy"
