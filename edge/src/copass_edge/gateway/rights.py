"""The rights that a broker must give: each device its own topics, the gateway theirs. Pure."""

from collections.abc import Iterable

from copass_edge.gateway import esprfid, fabomatic
from copass_edge.gateway.settings import Config


def grants(config: Config) -> dict[str, tuple[list[str], list[str]]]:
    """Login → (topics it may read, topics it may write). A device logs in as `machine-<id>`, or as
    its topic with `-` for `/`."""
    if config.mqtt is None:
        return {}
    reads: list[str] = []
    writes: list[str] = []
    rights: dict[str, tuple[list[str], list[str]]] = {config.mqtt.username: (reads, writes)}
    for board in config.fabomatic:
        request = fabomatic.request_topic(board.machine)
        reply, command = (
            fabomatic.reply_topic(board.machine),
            fabomatic.command_topic(board.machine),
        )
        rights[f"machine-{board.machine}"] = ([reply, command], [request])
        reads += [request, reply, command]  # what it obeys is watched for strangers
        writes += [reply, command]
    for station in config.esprfid:
        said = esprfid.event_topics(station.topic)
        others = [f"{station.topic}/{name}" for name in ("avty", "accesslist", "io/#")]
        command = esprfid.command_topic(station.topic)
        rights[station.topic.replace("/", "-")] = ([command], [*said, *others])
        reads += [*said, command]
        writes += [command]
    return rights


def mosquitto_acl(config: Config) -> str:
    """An `acl_file` of mosquitto, to be used with `allow_anonymous false`."""
    lines: list[str] = []
    for login, (reads, writes) in grants(config).items():
        lines.append(f"user {login}")
        lines += access_lines(reads, writes)
        lines.append("")
    return "\n".join(lines)


def access_lines(reads: Iterable[str], writes: Iterable[str]) -> list[str]:
    read, write = list(reads), list(writes)
    return [
        *(f"topic readwrite {topic}" for topic in read if topic in write),
        *(f"topic read {topic}" for topic in read if topic not in write),
        *(f"topic write {topic}" for topic in write if topic not in read),
    ]
