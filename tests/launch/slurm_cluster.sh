#!/bin/bash
# A Slurm cluster of two nodes on this machine, in namespaces of its own:
#
#   unshare --net --pid --uts --mount --fork --mount-proc --kill-child \
#     bash slurm_cluster.sh FOLDER COMMAND [ARGUMENT …]
#
# Needs root, slurm-wlm, munge and iproute2. Runs COMMAND once both nodes are idle;
# all daemons end with it.
set -eu

folder=$1
shift
mkdir -p "$folder/state"
hostname slurmhost
# Slurm daemons want an interface with an address, loopback alone does not do.
ip link set lo up
ip link add veth0 type veth peer name veth1
ip address add 10.9.0.1/24 dev veth0
ip link set veth0 up
ip link set veth1 up
echo "127.0.0.1 localhost
10.9.0.1 slurmhost" > "$folder/hosts"
mount --bind "$folder/hosts" /etc/hosts

head -c 128 /dev/urandom > "$folder/munge.key"
chmod 600 "$folder/munge.key"
chmod 755 "$folder"
chown -R "$(id -u)" "$folder/munge.key"
munged --force --key-file "$folder/munge.key" --socket "$folder/munge.socket" \
  --pid-file "$folder/munge.pid" --log-file "$folder/munge.log" --seed-file "$folder/munge.seed"

cat > "$folder/slurm.conf" << EOF
ClusterName=test
SlurmctldHost=slurmhost(10.9.0.1)
AuthInfo=socket=$folder/munge.socket
SlurmUser=root
SlurmctldPort=17000
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmdLogFile=$folder/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ReturnToService=2
JobRequeue=1
KillWait=5
MpiDefault=none
SchedulerParameters=sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName=n1 NodeHostname=slurmhost NodeAddr=10.9.0.1 Port=17001 CPUs=2 RealMemory=500
NodeName=n2 NodeHostname=slurmhost NodeAddr=10.9.0.1 Port=17002 CPUs=2 RealMemory=500
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
EOF
export SLURM_CONF=$folder/slurm.conf
mkdir -p "$folder/spool.n1" "$folder/spool.n2"
slurmctld
slurmd -N n1
slurmd -N n2
for _ in $(seq 100); do
  [ "$(sinfo --noheader --Node --states=idle --format=%N | wc -l)" = 2 ] && break
  sleep 0.2
done
exec "$@"
