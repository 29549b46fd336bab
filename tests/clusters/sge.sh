#!/usr/bin/env bash
# A Grid Engine of one host with sixteen slots, for tests: `sge.sh up` prints what to export, `sge.sh down` ends it.
# Everything is in SGE_TEST_ROOT and on ports of its own; the packages' own cell is not touched. Installs nothing; needs root.
set -euo pipefail
ROOT=${SGE_TEST_ROOT:?set it to a folder of its own}
export SGE_ROOT=$ROOT SGE_CELL=default
export SGE_QMASTER_PORT=${SGE_QMASTER_PORT:-18990} SGE_EXECD_PORT=${SGE_EXECD_PORT:-18991}
HOST=$(hostname -s)
COMMON=$ROOT/default/common
SLOTS=16

live() {
    local pid
    pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && grep -q '^State:[[:space:]]*[^Z]' "/proc/$pid/status" 2>/dev/null
}

stop() {
    live "$1" || return 0
    local pid
    pid=$(cat "$1")
    kill -TERM "$pid" 2>/dev/null || return 0
    for _ in $(seq 1 50); do live "$1" || return 0; sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null || true
}

down() {
    [ -d "$ROOT" ] || return 0
    if live "$ROOT/spool/qmaster/qmaster.pid"; then
        timeout 5 qdel -u '*' >/dev/null 2>&1 || true
        for _ in $(seq 1 50); do [ -z "$(timeout 5 qstat -u '*' 2>/dev/null)" ] && break; sleep 0.1; done
    fi
    # Its pid file is not where its spool folder is; it is told by the cell it was started for.
    for process in /proc/[0-9]*; do
        if [ "$(cat "$process/comm" 2>/dev/null)" = sge_execd ] && grep -qzx "SGE_ROOT=$ROOT" "$process/environ" 2>/dev/null; then
            kill -KILL "${process#/proc/}" 2>/dev/null || true
        fi
    done
    stop "$ROOT/spool/qmaster/qmaster.pid"
}

files() {
    mkdir -p "$COMMON" "$ROOT"/spool/{qmaster,execd,db}
    for part in bin lib util utilbin; do ln -sfn "/var/lib/gridengine/$part" "$ROOT/$part"; done
    echo "$HOST" >"$COMMON/act_qmaster"
    # A host whose address resolves back to "localhost" is refused; so both are one.
    echo "$HOST localhost $HOST.local" >"$COMMON/host_aliases"
    cat >"$COMMON/bootstrap" <<END
admin_user              none
default_domain          none
ignore_fqdn             false
spooling_method         berkeleydb
spooling_lib            libspoolb
spooling_params         $ROOT/spool/db
binary_path             /usr/sbin
qmaster_spool_dir       $ROOT/spool/qmaster
security_mode           none
listener_threads        2
worker_threads          2
scheduler_threads       1
END
}

configuration() {
    qconf -sconf | sed -e '/^#/d' -e 's/^min_uid.*/min_uid 0/' -e 's/^min_gid.*/min_gid 0/' \
        -e 's/^load_report_time.*/load_report_time 00:00:02/' -e 's/^max_unheard.*/max_unheard 00:00:20/' \
        -e "s|^execd_spool_dir.*|execd_spool_dir $ROOT/spool/execd|" -e 's/^max_u_jobs.*/max_u_jobs 6/' \
        -e 's/flush_time=[0-9:]*/flush_time=00:00:01/' -e 's/^execd_params.*/execd_params ENABLE_ADDGRP_KILL=TRUE/'
}

queue() {
    cat <<END
qname $1
hostlist $HOST
seq_no 0
load_thresholds NONE
suspend_thresholds NONE
nsuspend 1
suspend_interval 00:00:01
priority 0
min_cpu_interval 00:00:01
processors UNDEFINED
qtype BATCH INTERACTIVE
ckpt_list NONE
pe_list smp
rerun FALSE
slots $SLOTS
tmpdir /tmp
shell /bin/bash
prolog NONE
epilog NONE
shell_start_mode unix_behavior
starter_method NONE
suspend_method NONE
resume_method NONE
terminate_method NONE
notify 00:00:01
owner_list NONE
user_lists NONE
xuser_lists NONE
subordinate_list NONE
complex_values NONE
projects NONE
xprojects NONE
calendar NONE
initial_state default
END
    for limit in rt cpu fsize data stack core rss vmem; do printf 's_%s INFINITY\nh_%s INFINITY\n' $limit $limit; done
}

up() {
    for tool in sge_qmaster sge_execd qsub qconf; do
        command -v $tool >/dev/null || { echo "$tool is not installed: apt-get install gridengine-master gridengine-exec gridengine-client" >&2; exit 1; }
    done
    files
    /usr/share/gridengine/scripts/init_cluster "$ROOT" default "$ROOT/spool/db" root >&2
    sge_qmaster </dev/null >&2
    for _ in $(seq 1 100); do qconf -sconf >/dev/null 2>&1 && break; sleep 0.1; done
    local made
    made=$(mktemp -d)
    configuration >"$made/global"
    qconf -Mconf "$made/global" >&2
    qconf -ssconf | sed -e 's/^schedule_interval .*/schedule_interval 0:0:1/' -e 's/^flush_submit_sec.*/flush_submit_sec 1/' \
        -e 's/^flush_finish_sec.*/flush_finish_sec 1/' -e 's/^job_load_adjustments.*/job_load_adjustments NONE/' \
        -e 's/^load_adjustment_decay_time.*/load_adjustment_decay_time 0:0:0/' >"$made/scheduler"
    qconf -Msconf "$made/scheduler" >&2
    qconf -ah "$HOST" >&2 || true
    qconf -as "$HOST" >&2 || true
    printf 'pe_name smp\nslots 999\nuser_lists NONE\nxuser_lists NONE\nstart_proc_args /bin/true\nstop_proc_args /bin/true\nallocation_rule $pe_slots\ncontrol_slaves FALSE\njob_is_first_task TRUE\nurgency_slots min\naccounting_summary FALSE\nqsort_args NONE\n' >"$made/pe"
    qconf -Ap "$made/pe" >&2
    queue main.q >"$made/main"
    qconf -Aq "$made/main" >&2
    rm -r "$made"
    sge_execd </dev/null >&2
    for _ in $(seq 1 150); do
        qstat -f 2>/dev/null | grep -q "main.q@$HOST.*lx-amd64 *$" && {
            printf 'SGE_ROOT=%s\nSGE_CELL=default\nSGE_QMASTER_PORT=%s\nSGE_EXECD_PORT=%s\n' \
                "$ROOT" "$SGE_QMASTER_PORT" "$SGE_EXECD_PORT"
            exit 0
        }
        sleep 0.1
    done
    echo "the execution host did not come up" >&2
    qstat -f >&2 || true
    exit 1
}

case ${1:-} in
up) down; rm -rf "$ROOT"; up ;;
down) down; rm -rf "$ROOT" ;;
*) echo "usage: sge.sh up|down" >&2; exit 2 ;;
esac
