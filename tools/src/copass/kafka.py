"""Apache Kafka: its jars from Maven Central by coordinates, one broker in KRaft mode, on Java."""

import base64
import os
import re
import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

from copass.processes import Program, StartError, child_setup, end_of_log
from copass.servers import HOST, Server, kafka_answers, unused_port

REPOSITORY = Path(__file__).parents[3]
POM_FOLDER = REPOSITORY / "tools" / "kafka"
JAVA_MAJOR_MIN = 17
# Small for a laptop; the first compiler only, as a broker with little to do starts faster so.
JAVA_OPTIONS = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def kafka_version() -> str:
    """The release that the pom asks for."""
    found = re.search(r"<kafka\.version>(.+?)</", (POM_FOLDER / "pom.xml").read_text())
    if found is None:
        raise StartError(f"{POM_FOLDER}/pom.xml names no kafka.version")
    return found[1]


def libs_folder() -> Path:
    """Where the jars are kept: in the clone, whatever the state folder is."""
    return REPOSITORY / ".copass" / "kafka" / kafka_version() / "libs"


def find_java() -> str:
    """The machine's java. Raises StartError when there is none or it is too old."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None)
    if java is None:
        raise StartError(f"Apache Kafka needs Java {JAVA_MAJOR_MIN} or later, and there is no java")
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30)
    found = re.search(r'version "(\d+)', answer.stderr)
    if found is None or int(found[1]) < JAVA_MAJOR_MIN:
        raise StartError(f"Apache Kafka needs Java {JAVA_MAJOR_MIN} or later; {java} is older")
    return java


def fetch() -> Path:
    """The folder with the jars, fetched when absent. Raises StartError with one line."""
    libs = libs_folder()
    if libs.is_dir():
        return libs
    find_java()
    maven = shutil.which("mvn")
    if maven is None:
        raise StartError("Apache Kafka is fetched with Maven, and there is no mvn")
    making = libs.with_name(f"libs.{os.getpid()}.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        result = subprocess.run(
            [
                maven,
                *("-q", "-B", "-f", str(POM_FOLDER / "pom.xml")),
                *("dependency:copy-dependencies", f"-DoutputDirectory={making}"),
            ],
            capture_output=True,
            text=True,
            timeout=900,
        )
        if result.returncode != 0:
            raise StartError(f"Apache Kafka could not be fetched: {_first_error(result.stdout)}")
        try:
            making.rename(libs)
        except OSError:  # another process was faster
            if not libs.is_dir():
                raise
    except subprocess.TimeoutExpired as error:
        raise StartError("Apache Kafka could not be fetched within 15 minutes") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return libs


def _first_error(output: str) -> str:
    lines = [line for line in output.splitlines() if line.startswith("[ERROR]")]
    return lines[0].removeprefix("[ERROR]").strip()[:300] if lines else "mvn failed"


def _properties(folder: Path, port: int, controller_port: int) -> str:
    return "\n".join(
        (
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.voters=1@{HOST}:{controller_port}",
            f"listeners=BROKER://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
            f"advertised.listeners=BROKER://{HOST}:{port}",
            "listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name=BROKER",
            "controller.listener.names=CONTROLLER",
            f"log.dirs={folder / 'log'}",
            "auto.create.topics.enable=false",
            # One broker: nothing can be replicated.
            "offsets.topic.replication.factor=1",
            "offsets.topic.num.partitions=8",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "transaction.state.log.num.partitions=4",
            "share.coordinator.state.topic.replication.factor=1",
            "share.coordinator.state.topic.min.isr=1",
            # A restarted worker need not wait for companions.
            "group.initial.rebalance.delay.ms=0",
            "",
        )
    )


def _java_command(libs: Path, java: str) -> tuple[str, ...]:
    logging = f"-Dlog4j2.configurationFile={POM_FOLDER / 'log4j2.properties'}"
    return (java, *JAVA_OPTIONS, logging, "-cp", f"{libs}/*")


def _format(program: Program, command: tuple[str, ...], folder: Path, properties: Path) -> None:
    """Make the log folder whole, or not at all."""
    log_folder, making = folder / "log", folder / "log.making"
    if (log_folder / "meta.properties").exists():
        return
    shutil.rmtree(making, ignore_errors=True)
    shutil.rmtree(log_folder, ignore_errors=True)
    cluster = base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
    temporary = folder / "format.properties"
    temporary.write_text(properties.read_text().replace(str(log_folder), str(making)))
    with program.log.open("ab") as log:
        result = subprocess.run(
            [
                *command,
                *("kafka.tools.StorageTool", "format"),
                *("--config", str(temporary), "--cluster-id", cluster),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=child_setup(program),
            timeout=120,
        )
    temporary.unlink(missing_ok=True)
    if result.returncode != 0:
        raise StartError(f"Kafka's log folder cannot be made\n{end_of_log(program.log)}")
    making.rename(log_folder)


def apache(
    folder: Path, port: int, *, controller_port: int | None = None, log: Path | None = None
) -> Server:
    """One Apache Kafka broker, its own controller, with its log below `folder`.

    Raises StartError when Java or the jars cannot be had.
    """
    java, libs = find_java(), fetch()
    command = _java_command(libs, java)
    properties = folder / "server.properties"
    bootstrap = f"{HOST}:{port}"
    program = Program(
        name="kafka",
        command=(*command, "kafka.Kafka", str(properties)),
        log=log or folder / "kafka.log",
    )

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        properties.write_text(_properties(folder, port, controller_port or unused_port()))
        _format(program, command, folder, properties)

    return Server(program, port, bootstrap, prepare, lambda: kafka_answers(bootstrap))
