"""The rights that a broker must give: each device its own topics, the gateway theirs. Pure."""

from collections.abc import Iterable

from copass_edge.gateway import esprfid, fabomatic
from copass_edge.gateway.settings import Config, ConfigError

# Login → (topics it may read, topics it may write).
Rights = dict[str, tuple[list[str], list[str]]]


def grants(config: Config) -> Rights:
    """The rights of the gateway and of each device. A device logs in as `machine-<id>`, or as
    its topic with `-` for `/`. Raises ConfigError when two devices would share a login or a topic:
    one could speak as the other."""
    if config.mqtt is None:
        return {}
    reads: list[str] = []
    writes: list[str] = []
    rights: Rights = {config.mqtt.username: (reads, writes)}
    for board in config.fabomatic:
        request = fabomatic.request_topic(board.machine)
        reply, command = (
            fabomatic.reply_topic(board.machine),
            fabomatic.command_topic(board.machine),
        )
        add(rights, f"machine-{board.machine}", [reply, command], [request])
        reads += [request, reply, command]  # what it obeys is watched for strangers
        writes += [reply, command]
    for station in config.esprfid:
        said = esprfid.event_topics(station.topic)
        others = [f"{station.topic}/{name}" for name in ("avty", "accesslist", "io/#")]
        command = esprfid.command_topic(station.topic)
        add(rights, station.topic.replace("/", "-"), [command], [*said, *others])
        reads += [*said, command]
        writes += [command]
    return rights


def add(rights: Rights, login: str, reads: list[str], writes: list[str]) -> None:
    if login in rights:
        raise ConfigError(f"mqtt: two devices, or one and the gateway, would log in as {login}")
    for other, (their_reads, their_writes) in list(rights.items())[1:]:
        shared = {*their_reads, *their_writes}.intersection((*reads, *writes))
        if shared:
            raise ConfigError(f"mqtt: {login} and {other} share the topic {min(shared)}")
    rights[login] = (reads, writes)


def mosquitto_acl(rights: Rights) -> str:
    """An `acl_file` of mosquitto, to be used with `allow_anonymous false`."""
    lines: list[str] = []
    for login, (reads, writes) in rights.items():
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
