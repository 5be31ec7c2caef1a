#!/usr/bin/env bash
# A real S3 server for tests and benchmarks: one Ceph monitor, one OSD and the RADOS gateway, all on loopback
# and all under one directory. It needs no root, and several can run side by side.
#
#   scripts/ceph-rgw.sh DIR [GATEWAY_PORT [MONITOR_PORT]]   start; returns when S3 requests are answered
#   scripts/ceph-rgw.sh --stop DIR                          stop, and wait until every daemon is gone
#   scripts/ceph-rgw.sh --foreground DIR [PORTS]            start, and stay until SIGTERM, which stops it all
#
# Ports that are not given are chosen. A start prints the gateway's URL when it is done; the access key is
# ACCESSKEYID0 and the secret SECRETACCESSKEY0. Logs are in DIR/log. DIR must be new or an earlier DIR of this
# script: a start empties it.
#
# Debian packages: ceph-mon ceph-mgr ceph-osd radosgw (with --no-install-recommends). Seen with Ceph 16.2.15.
set -euo pipefail

readonly ACCESS_KEY=ACCESSKEYID0 SECRET_KEY=SECRETACCESSKEY0
readonly DAEMONS=(rgw osd mon) # in the order in which they are stopped

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
}

fail() {
  echo "ceph-rgw.sh: $*" >&2
  exit 1
}

# Ports below 32768 are never given to an outgoing connection, so a chosen port stays free until it is bound.
free_port() {
  local port
  while port=$((20000 + RANDOM % 12000)); port_answers "$port"; do :; done
  echo "$port"
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The number in a pid file may belong to another program by now: ours carries our configuration file.
running_pid() {
  local pid
  pid=$(cat "$1/$2.pid" 2>/dev/null) || return 1
  if [ -r "/proc/$pid/cmdline" ]; then
    tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "$1/ceph.conf" || return 1
  fi
  kill -0 "$pid" 2>/dev/null && echo "$pid"
}

stop() {
  local directory=$1 daemon pid
  for daemon in "${DAEMONS[@]}"; do
    if pid=$(running_pid "$directory" "$daemon"); then
      kill "$pid" 2>/dev/null || true
      for _ in $(seq 100); do
        running_pid "$directory" "$daemon" >/dev/null || break
        sleep 0.1
      done
      if running_pid "$directory" "$daemon" >/dev/null; then kill -9 "$pid" 2>/dev/null || true; fi
    fi
    rm -f "$directory/$daemon.pid"
  done
}

# background NAME COMMAND...: run a daemon in the foreground mode of its own, output in DIR/log/NAME.out.
background() {
  local name=$1
  shift
  "$@" </dev/null >"$DIR/log/$name.out" 2>&1 &
  echo $! >"$DIR/$name.pid"
}

# wait_for SECONDS NAME CONDITION...: until the condition holds; at once a failure when daemon NAME has died.
wait_for() {
  local seconds=$1 name=$2 end
  shift 2
  end=$((SECONDS + seconds))
  until "$@"; do
    running_pid "$DIR" "$name" >/dev/null || fail "$name ended during the start"
    [ "$SECONDS" -lt "$end" ] || fail "$name was not ready after $seconds s"
    sleep 0.1
  done
}

osd_is_up() { timeout 10 ceph -c "$CONF" osd stat 2>/dev/null | grep -q '1 up'; }

write_configuration() {
  cat >"$CONF" <<END
[global]
fsid = $FSID
mon host = v2:127.0.0.1:$MONITOR_PORT
mon initial members = a
ms bind ipv4 = true
ms bind ipv6 = false
public addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $DIR/keyring
run dir = $DIR/run
crash dir = $DIR/run
admin socket = $DIR/run/\$name.asok
log file = $DIR/log/\$name.log

# One disk, no replicas: what a test needs.
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000

mon data = $DIR/mon
# A developer's disk is often more than 70 % full, where the monitor would refuse to start.
mon data avail warn = 2
mon data avail crit = 1
osd data = $DIR/osd
osd objectstore = bluestore
# A sparse file: it takes only what is written.
bluestore block size = 8589934592
bluestore fsck on mount = false

[client.rgw.a]
# Without tcp_nodelay each GET waits 40 ms for the peer's delayed acknowledgement.
rgw frontends = beast endpoint=127.0.0.1:$GATEWAY_PORT tcp_nodelay=1
rgw thread pool size = 64
rgw enable usage log = false
END
}

write_keys() {
  local keyring=$DIR/keyring
  ceph-authtool --create-keyring "$keyring" --gen-key -n mon. --cap mon 'allow *'
  ceph-authtool "$keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
  ceph-authtool "$keyring" --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
  ceph-authtool "$keyring" --gen-key -n client.rgw.a --cap mon 'allow rw' --cap osd 'allow rwx'
}

start_monitor() {
  monmaptool --create --fsid "$FSID" --addv a "v2:127.0.0.1:$MONITOR_PORT" "$DIR/monmap"
  ceph-mon -c "$CONF" -i a --mkfs --monmap "$DIR/monmap" --keyring "$DIR/keyring"
  background mon ceph-mon -c "$CONF" -i a -f
  wait_for 30 mon port_answers "$MONITOR_PORT"
}

start_osd() {
  local uuid
  uuid=$(cat /proc/sys/kernel/random/uuid)
  timeout 60 ceph -c "$CONF" osd new "$uuid" 0
  ceph-osd -c "$CONF" -i 0 --mkfs --osd-uuid "$uuid"
  background osd ceph-osd -c "$CONF" -i 0 -f
  wait_for 60 osd osd_is_up
}

start_gateway() {
  background rgw radosgw -c "$CONF" -n client.rgw.a -f
  wait_for 120 rgw port_answers "$GATEWAY_PORT"
  timeout 60 radosgw-admin -c "$CONF" user create --uid=test --display-name=test \
    --access-key="$ACCESS_KEY" --secret-key="$SECRET_KEY"
}

give_up() {
  local status=$?
  [ "$status" -ne 0 ] || return 0
  for log in setup mon.out osd.out rgw.out; do
    [ -s "$DIR/log/$log" ] || continue
    echo "--- end of $DIR/log/$log"
    tail -n 20 "$DIR/log/$log"
  done >&2
  stop "$DIR"
}

[ $# -ge 1 ] || usage
if [ "$1" = --stop ]; then
  [ $# -eq 2 ] || usage
  stop "$(realpath "$2")"
  exit 0
fi
FOREGROUND=no
if [ "$1" = --foreground ]; then
  FOREGROUND=yes
  shift
fi
case ${1:--} in -*) usage ;; esac
readonly FOREGROUND

for program in ceph ceph-authtool ceph-mon ceph-osd monmaptool radosgw radosgw-admin; do
  command -v "$program" >/dev/null || fail "$program is not installed (Debian: ceph-mon ceph-mgr ceph-osd radosgw)"
done

mkdir -p "$1"
DIR=$(realpath "$1")
readonly DIR CONF=$DIR/ceph.conf
if [ -n "$(ls -A "$DIR")" ]; then
  [ -f "$CONF" ] || fail "$DIR holds files that are not this script's; give an empty directory"
  stop "$DIR"
  rm -rf "${DIR:?}"/*
fi
mkdir -p "$DIR"/{mon,osd,run,log}
FSID=$(cat /proc/sys/kernel/random/uuid)
GATEWAY_PORT=${2:-$(free_port)}
MONITOR_PORT=${3:-$(free_port)}
readonly FSID GATEWAY_PORT MONITOR_PORT
trap give_up EXIT
trap 'exit 130' INT TERM

{
  write_configuration
  write_keys
  start_monitor
  start_osd
  start_gateway
} >"$DIR/log/setup" 2>&1
echo "http://127.0.0.1:$GATEWAY_PORT"
[ "$FOREGROUND" = yes ] || exit 0

trap 'stop "$DIR"; exit 0' INT TERM
wait -n || true
fail "a daemon ended by itself"
