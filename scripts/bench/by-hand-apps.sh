# shellcheck shell=bash
# The apps, for by-hand.sh and by-hand-k3d.sh.
#   APP_MANIFESTS       file with the apps' objects
#   APP_ROUTES          a line for each app: its name, its namespace, a host that leads to it
#   KUBECONFIG          of the cluster

# answers ADDRESS APP NAMESPACE HOST: another app's answer, or that of another namespace, does not count.
answers() {
  local answer
  answer=$(curl --silent --max-time 2 --header 'Accept: application/json' --header "Host: $4" "http://$1/") &&
    grep -q "\"app\": *\"$2\"" <<<"$answer" && grep -q "\"namespace\": *\"$3\"" <<<"$answer"
}

all_answer() {
  local app namespace host
  while read -r app namespace host; do
    answers "$1" "$app" "$namespace" "$host" || return
  done <<<"$APP_ROUTES"
}

apply_apps() {
  kubectl apply -f "$APP_MANIFESTS"
  echo "phase apps applied"
}

# await_apps ADDRESS
await_apps() {
  local deadline=$((SECONDS + 240))
  until all_answer "$1"; do
    if [ $SECONDS -ge $deadline ]; then
      kubectl get pods --all-namespaces --output wide >&2
      echo "${0##*/}: the apps did not answer within 240 s" >&2
      exit 1
    fi
    sleep 0.2
  done
  echo "phase apps answering"
}
