#!/usr/bin/env bash
# A Slurm of four nodes on this machine, for tests: `slurm.sh up` prints SLURM_CONF, `slurm.sh down` ends it.
# Everything is in SLURM_ROOT and on ports of its own; /etc/slurm is not touched. Installs nothing; needs root.
set -euo pipefail
ROOT=${SLURM_ROOT:?set it to a folder of its own}
CTL_PORT=${SLURM_CTL_PORT:-18817}
D_PORT=${SLURM_D_PORT:-18900}
NODES=4 CPUS=8 MEM=16000 # declared, not real
CONF=$ROOT/slurm.conf
HOST=$(hostname -s)
export SLURM_CONF=$CONF

# Process 1 of a container may never reap: a zombie counts as dead, whatever `kill -0` says.
live() {
    local pid
    pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && grep -q '^State:[[:space:]]*[^Z]' "/proc/$pid/status" 2>/dev/null
}

stop() {
    for file in "$@"; do
        live "$file" || continue
        pid=$(cat "$file" 2>/dev/null) || continue
        kill -TERM "$pid" 2>/dev/null || continue
        for _ in $(seq 1 50); do live "$file" || break; sleep 0.1; done
        if live "$file"; then kill -KILL "$pid"; fi
    done
}

down() {
    [ -d "$ROOT/pid" ] || return 0
    if live "$ROOT/pid/slurmctld.pid"; then
        timeout 5 scancel --state=PENDING,RUNNING,SUSPENDED -u "$(id -un)" 2>/dev/null || true
        for _ in $(seq 1 50); do [ -z "$(timeout 5 squeue -h -o %i 2>/dev/null)" ] && break; sleep 0.1; done
    fi
    stop "$ROOT"/pid/slurmd.*.pid
    # Steps of jobs that were ending outlive their daemon, with what they run.
    for process in /proc/[0-9]*; do
        grep -qzx "SLURM_CONF=$CONF" "$process/environ" 2>/dev/null || continue
        if [ "$(cat "$process/comm" 2>/dev/null)" = slurmstepd ] || grep -qz "^SLURM_JOB_ID=" "$process/environ" 2>/dev/null; then
            kill -KILL "${process#/proc/}" 2>/dev/null || true
        fi
    done
    stop "$ROOT/pid/slurmctld.pid"
    stop "$ROOT/munge/munged.pid"
}

configure() {
    mkdir -p "$ROOT"/{munge,state,spool,log,pid}
    chmod 755 "$ROOT"
    chmod 711 "$ROOT/munge"
    {
        cat <<CONFEOF
ClusterName=tests
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$ROOT/munge/munge.socket
CredType=cred/munge
SlurmctldPort=$CTL_PORT
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool/%n
SlurmctldPidFile=$ROOT/pid/slurmctld.pid
SlurmdPidFile=$ROOT/pid/slurmd.%n.pid
SlurmctldLogFile=$ROOT/log/slurmctld.log
SlurmdLogFile=$ROOT/log/slurmd.%n.log
# pgid, not linuxproc: that one loses a worker whose shell was killed first, and the later SIGKILL misses it.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory,CR_LLN
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,bf_resolution=1,sched_interval=2,sched_min_interval=100000,batch_sched_delay=0
SlurmctldTimeout=30
SlurmdTimeout=10
ReturnToService=2
MinJobAge=300
KillWait=3
AccountingStorageType=accounting_storage/none
CONFEOF
        for i in $(seq 1 $NODES); do
            echo "NodeName=n$i NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((D_PORT + i)) CPUs=$CPUS Boards=1" \
                "SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEM State=UNKNOWN"
        done
        cat <<CONFEOF
PartitionName=main Default=YES Nodes=ALL MaxTime=INFINITE DefaultTime=60 DefMemPerCPU=500 OverSubscribe=NO State=UP
PartitionName=pair Nodes=n1 MaxCPUsPerNode=2 MaxTime=120 State=UP
PartitionName=closed Nodes=ALL State=DOWN
CONFEOF
    } >"$CONF"
}

up() {
    for tool in slurmctld slurmd munged squeue; do
        command -v $tool >/dev/null || { echo "$tool is not installed: apt-get install slurmctld slurmd slurm-client munge" >&2; exit 1; }
    done
    configure
    head -c 1024 /dev/urandom >"$ROOT/munge/munge.key"
    chmod 400 "$ROOT/munge/munge.key"
    # Forced: the folders above may be writable by others on the machine of a test.
    munged --force -S "$ROOT/munge/munge.socket" --key-file="$ROOT/munge/munge.key" \
        --pid-file="$ROOT/munge/munged.pid" --log-file="$ROOT/munge/munged.log" --seed-file="$ROOT/munge/seed" >&2
    slurmctld -f "$CONF" >&2
    for i in $(seq 1 $NODES); do
        mkdir -p "$ROOT/spool/n$i"
        slurmd -N "n$i" -f "$CONF" >&2
    done
    for _ in $(seq 1 300); do
        [ "$(timeout 5 sinfo -h -N -p main -t idle -o %N 2>/dev/null | sort -u | wc -l)" -ge $NODES ] && { echo "$CONF"; exit 0; }
        sleep 0.1
    done
    echo "the nodes did not come up" >&2
    sinfo >&2 || true
    tail -n 5 "$ROOT"/log/*.log >&2
    exit 1
}

case ${1:-} in
up) down; rm -rf "$ROOT"; up ;;
down) down; rm -rf "$ROOT" ;;
*) echo "usage: slurm.sh up|down" >&2; exit 2 ;;
esac
