#!/usr/bin/env bash
# An sshd of the current user on 127.0.0.1 with keys of its own: `sshd.sh up|down`, with SSHD_ROOT, SSHD_PORT, SSHD_ENV.
# SSHD_ENV holds `NAME=value` lines, which every session gets; its HOME is a folder of its own.
set -euo pipefail
R=$SSHD_ROOT
if [ "$1" = down ]; then
    [ -s "$R/sshd.pid" ] && kill "$(cat "$R/sshd.pid")" 2>/dev/null
    exit 0
fi
umask 077
mkdir -p "$R/home/.ssh" "$R/there"
[ -s "$R/host" ] || ssh-keygen -q -t ed25519 -N '' -f "$R/host"
[ -s "$R/stranger" ] || ssh-keygen -q -t ed25519 -N '' -f "$R/stranger"
[ -s "$R/home/.ssh/id_ed25519" ] || ssh-keygen -q -t ed25519 -N '' -f "$R/home/.ssh/id_ed25519"
cp "$R/home/.ssh/id_ed25519.pub" "$R/authorized_keys"
# As root, sshd separates privileges in this folder.
[ "$(id -u)" -ne 0 ] || mkdir -p -m 755 /run/sshd
environment="HOME=$R/there"
while read -r line; do [ -z "$line" ] || environment+=" \"$line\""; done <<<"${SSHD_ENV:-}"
cat >"$R/sshd_config" <<CONFIG
Port $SSHD_PORT
ListenAddress 127.0.0.1
HostKey $R/host
PidFile $R/sshd.pid
AuthorizedKeysFile $R/authorized_keys
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin prohibit-password
MaxStartups 100
SetEnv $environment
CONFIG
printf '[127.0.0.1]:%s %s\n' "$SSHD_PORT" "$(cut -d' ' -f1,2 "$R/host.pub")" >"$R/home/.ssh/known_hosts"
cat >"$R/home/.ssh/config" <<CONFIG
Host login
  HostName 127.0.0.1
  Port $SSHD_PORT
  User $(id -un)
Host behind
  HostName 127.0.0.1
  Port $SSHD_PORT
  User $(id -un)
  ProxyJump login
Host once
  HostName 127.0.0.1
  Port $SSHD_PORT
  User $(id -un)
  UserKnownHostsFile $R/home/.ssh/known_hosts
  IdentityFile $R/stranger
  IdentitiesOnly yes
  ControlPath $R/cm
CONFIG
"$(command -v sshd || echo /usr/sbin/sshd)" -f "$R/sshd_config" -E "$R/sshd.log"
for _ in $(seq 1 200); do
    [ -s "$R/sshd.pid" ] && exit 0
    sleep 0.05
done
cat "$R/sshd.log" >&2
exit 1
