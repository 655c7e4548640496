"""A cluster on one throwaway Debian machine: Slurm with two nodes, and Apptainer. `cluster.py up|down FOLDER`.

Slurm comes from Debian. Apptainer isn't in Debian 12: it is taken from Debian unstable, put into a folder of its own,
and run inside that folder by a small `apptainer` on the PATH, in a user namespace, as users without privilege run it.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

NODES = ("n1", "n2")
_PACKAGES = "munge slurmctld slurmd slurm-client libpmix-dev shellcheck uidmap debootstrap ca-certificates"
_APPTAINER = "apptainer,squashfs-tools,squashfuse,fuse2fs,fuse-overlayfs,uidmap,debootstrap,ca-certificates"
_WRAPPER = Path("/usr/local/bin/apptainer")
_OWN = {
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "lost+found",
    "proc",
    "sbin",
    "sys",
    "usr",
    "var",
}


def run(
    *command: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command that must succeed; its output."""
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def install() -> None:
    """Debian's packages, where they are missing."""
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "shellcheck", "newuidmap", "debootstrap")
    if all(shutil.which(p) for p in programs) and list(Path("/usr/include").rglob("pmix.h")):
        return
    quiet = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    run("apt-get", "update", env=quiet)
    run("apt-get", "install", "-y", *_PACKAGES.split(), env=quiet)


def install_apptainer(folder: Path) -> None:
    """Apptainer, as if it were installed on this machine."""
    if shutil.which("apptainer") and not subprocess.run(["apptainer", "--version"], check=False).returncode:
        return
    root = folder / "apptainer"
    if not (root / "usr/bin/apptainer").exists():
        shutil.rmtree(root, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include={_APPTAINER}", "unstable", root)
    for name in ("/etc/subuid", "/etc/subgid"):
        lines = Path(name).read_text() if Path(name).exists() else ""
        if "root:0:65536" not in lines:
            Path(name).write_text(lines + "root:0:65536\n")
    shared = [f"/{p.name}" for p in Path("/").iterdir() if p.is_dir() and not p.is_symlink() and p.name not in _OWN]
    enter = folder / "enter-apptainer"
    enter.write_text(
        f"""#!/bin/bash
set -e
here=$PWD
mount --make-rprivate /
mount --bind {root} {root}
for path in /proc /sys /dev {" ".join(shared)}; do
  mkdir -p "{root}$path"
  mount --rbind "$path" "{root}$path"
done
for file in /etc/resolv.conf /etc/hosts /etc/passwd /etc/group /etc/subuid /etc/subgid; do
  touch "{root}$file"
  mount --bind "$file" "{root}$file"
done
mkdir -p {root}/.old
cd {root}
pivot_root . .old
umount -l /.old
cd "$here"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec /usr/bin/apptainer "$@"
"""
    )
    enter.chmod(0o755)
    _WRAPPER.write_text(
        "#!/bin/bash\nexec unshare --user --map-users=0,0,65536 --map-groups=0,0,65536 --setuid 0 --setgid 0 --mount "
        f'{enter} "$@"\n'
    )
    _WRAPPER.chmod(0o755)


def _configuration(folder: Path) -> str:
    host = socket.gethostname()
    cores = max(2, os.cpu_count() or 2)
    return f"""ClusterName=throwaway
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=5
SlurmdTimeout=10
OverTimeLimit=0
MinJobAge=3600
SchedulerParameters=bf_interval=2,sched_interval=2
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool/%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
TmpFS={folder}/tmp-%n
NodeName={",".join(NODES)} NodeHostname={host} NodeAddr=127.0.0.1 Port=[17001-17002] CPUs={cores} RealMemory=4000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """Slurm's daemons in ``folder``, which is theirs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"

    def up(self) -> None:
        """Start all daemons and wait for the nodes."""
        self.down()
        for name in ("state", *(f"{kind}{n}" for kind in ("spool/", "tmp-") for n in NODES)):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(parents=True)
        self.configuration.write_text(_configuration(self.folder))
        os.environ["SLURM_CONF"] = str(self.configuration)
        run("install", "-d", "-o", "munge", "-g", "munge", "-m", "755", "/run/munge")
        subprocess.run(["pkill", "-x", "munged"], check=False)
        run("runuser", "-u", "munge", "--", "munged", "--force")
        run("slurmctld", "-i")
        for node in NODES:
            self.start_node(node)
        self.wait_for_nodes()

    def start_node(self, node: str) -> None:
        """Start the slurmd of ``node``."""
        run("slurmd", "-N", node)

    def stop_node(self, node: str) -> None:
        """Kill the slurmd of ``node``, without a word to anybody, and all that runs under it, as when power fails."""
        pid = int((self.folder / f"slurmd-{node}.pid").read_text())
        os.kill(pid, 9)
        for name in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = name.read_bytes().split(b"\0")
                parent = name.parent
                if words[0].startswith(b"slurmstepd:") and f"SLURMD_NODENAME={node}".encode() in b"".join(
                    (child / "environ").read_bytes() for child in _family(parent)
                ):
                    for process in (*_family(parent), parent):
                        os.kill(int(process.name), 9)
            except (OSError, ValueError):
                continue

    def wait_for_nodes(self, seconds: float = 60) -> None:
        """Return when every node is ready for work."""
        until = time.monotonic() + seconds
        while (states := run("sinfo", "-h", "-N", "-o", "%T").stdout.split()) != ["idle"] * len(NODES):
            if time.monotonic() > until:
                raise RuntimeError(f"nodes are not ready: {states}")
            time.sleep(0.5)

    def down(self) -> None:
        """End all daemons and what they run."""
        for name in ("slurmctld", "slurmd", "slurmstepd"):
            subprocess.run(["pkill", "-9", "-x", name], check=False)
        time.sleep(0.5)


def _family(process: Path) -> list[Path]:
    """The processes under ``process``, youngest first."""
    children: dict[str, list[str]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            children.setdefault(stat.read_text().rpartition(")")[2].split()[1], []).append(stat.parent.name)
        except OSError:
            continue
    found, todo = [], [process.name]
    while todo:
        for child in children.get(todo.pop(), []):
            found.append(Path("/proc") / child)
            todo.append(child)
    return found[::-1]


if __name__ == "__main__":
    place = Path(sys.argv[2]).absolute()
    place.mkdir(parents=True, exist_ok=True)
    if sys.argv[1] == "up":
        install()
        install_apptainer(place)
        Cluster(place).up()
        print(f"export SLURM_CONF={place}/slurm.conf")
    else:
        Cluster(place).down()
