"""What must hold before anything is started: free ports, room on the disk, a folder of ours."""

import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

import psutil

from copass.network import PORT_BASE_MAX
from copass.processes import StartError
from copass.servers import HOST

MIB = 1024 * 1024
# PostgreSQL's folder and its write-ahead log, the demo network, logs; measured 130 MiB when new.
FREE_FIRST_MIB = 400
FREE_AGAIN_MIB = 150


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _listener(port: int) -> str:
    """Who listens there, as far as we may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.pid and connection.laddr[1:] == (port,):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return "another program"


def check_ports(ports: Mapping[int, str], base: int) -> None:
    """Raises StartError that names each taken port, who has it, and how to move."""
    taken = [port for port in sorted(ports) if not is_free(port)]
    if not taken:
        return
    lines = [
        f"port {port}, needed by {ports[port]}, is taken by {_listener(port)}" for port in taken
    ]
    offsets = [port - base for port in ports]
    for other in range(base + 100, min(base + 3000, PORT_BASE_MAX), 100):
        if all(is_free(other + offset) for offset in offsets):
            lines.append(f"to use other ports: COPASS_PORT_BASE={other} make up")
            break
    raise StartError("\n".join(lines))


def check_space(home: Path) -> None:
    """Raises StartError when the disk has too little room to run safely."""
    fresh = not (home / "postgres" / "data").exists()
    wanted = FREE_FIRST_MIB if fresh else FREE_AGAIN_MIB
    free = shutil.disk_usage(home).free // MIB
    if free < wanted:
        raise StartError(
            f"the disk is almost full: {home} needs {wanted} MiB free and has {free} MiB; "
            "free some space, or set COPASS_HOME to a folder elsewhere"
        )


def rotate_log(path: Path, size_max: int = 5 * MIB) -> None:
    """Begin a new log when the old one is large; one old one is kept."""
    if path.exists() and path.stat().st_size > size_max:
        path.replace(path.with_name(path.name + ".1"))
