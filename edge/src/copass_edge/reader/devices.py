"""What is wired to the board: things that read, and a relay that opens. Each library is asked for
only when its device is; `simulated`, `stdin` and `tcp` need none."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

LINE_MAX = 1024
UNLOCK_MS_MAX = 60_000
RETRY_S = 5.0


class DeviceError(Exception):
    """A device is not there, or its library is not installed; the text says what to do."""


class Input(Protocol):
    """Something that reads. `texts` gives one line for each thing that is held to it, for ever.

    `show` tells whoever stands there what was decided, where the device can.
    """

    def texts(self) -> AsyncIterator[str]: ...

    def show(self, text: str, *, granted: bool) -> None: ...


class Silent:
    """Of readers without a display."""

    def show(self, text: str, *, granted: bool) -> None:
        del text, granted


class Relay(Protocol):
    """Something that opens. `open` returns when it is closed again."""

    async def open(self, milliseconds: int) -> None: ...

    def close(self) -> None: ...


def clean(raw: bytes) -> str:
    """A line as text, whatever it holds."""
    return raw[:LINE_MAX].decode("utf-8", "replace").strip()


class Lines:
    """Lines of a stream: stdin, or who connects to a port of this board (for tests, and for
    readers that speak TCP; it listens on the board itself alone)."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port
        self._queue: asyncio.Queue[tuple[str, asyncio.StreamWriter | None]] = asyncio.Queue(64)
        self._last: asyncio.StreamWriter | None = None

    async def texts(self) -> AsyncIterator[str]:
        if self.port is None:
            loop = asyncio.get_running_loop()
            stream = asyncio.StreamReader(limit=LINE_MAX)
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), sys.stdin)
            async for line in read_lines(stream):
                yield line
            return
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=LINE_MAX)
        async with server:
            while True:
                text, self._last = await self._queue.get()
                yield text

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async for line in read_lines(reader):
                await self._queue.put((line, writer))
        except ConnectionError:
            return
        finally:
            writer.close()

    def show(self, text: str, *, granted: bool) -> None:
        line = f"{'OPEN' if granted else 'DENY'} {text}\n"
        if self.port is None:
            sys.stdout.write(line)
            sys.stdout.flush()
        elif self._last is not None and not self._last.is_closing():
            self._last.write(line.encode())


async def read_lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines until the end; one that is too long is no credential, and is left out."""
    while True:
        try:
            line = await stream.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            await stream.readexactly(max(1, error.consumed))
            continue
        except asyncio.IncompleteReadError as error:
            if clean(error.partial):
                yield clean(error.partial)
            return
        yield clean(line)


class Wedge(Silent):
    """A reader that types like a keyboard (evdev). It is grabbed, so that nothing else hears it."""

    def __init__(self, device: str) -> None:
        self.device = device

    async def texts(self) -> AsyncIterator[str]:
        try:
            import evdev
        except ImportError:
            raise DeviceError("install copass-edge[evdev] for a keyboard reader") from None
        try:
            device = evdev.InputDevice(self.device)
            device.grab()
        except OSError as error:
            raise DeviceError(f"{self.device}: {error.strerror or error}") from None
        typed: list[str] = []
        shift = False
        with contextlib.closing(device):
            async for event in device.async_read_loop():
                if event.type != evdev.ecodes.EV_KEY:
                    continue
                name = evdev.ecodes.KEY[event.code]
                name = str(name if isinstance(name, str) else name[0]).removeprefix("KEY_")
                if name in ("LEFTSHIFT", "RIGHTSHIFT"):
                    shift = event.value != 0
                elif event.value != 1:  # let go, or held
                    continue
                elif name in ("ENTER", "KPENTER"):
                    yield "".join(typed)
                    typed.clear()
                else:
                    typed.append(typed_character(name, shift=shift))
                    del typed[:-LINE_MAX]


TYPED = {
    "DOT": ".", "SLASH": "/", "MINUS": "-", "EQUAL": "=", "SEMICOLON": ";", "SPACE": " ",
}  # fmt: skip
TYPED_WITH_SHIFT = {"SEMICOLON": ":", "SLASH": "?", "7": "&", "EQUAL": "+", "MINUS": "_"}


def typed_character(name: str, *, shift: bool) -> str:
    """The character of a key of a US keyboard; empty for one that types none."""
    name = name.removeprefix("KP")
    if shift and name in TYPED_WITH_SHIFT:
        return TYPED_WITH_SHIFT[name]
    if len(name) == 1:
        return name if shift or name.isdigit() else name.lower()
    return TYPED.get(name, "")


class Serial(Silent):
    """A reader on a serial port: one line for each card."""

    def __init__(self, device: str, baud: int) -> None:
        self.device, self.baud = device, baud

    async def texts(self) -> AsyncIterator[str]:
        try:
            import serial
        except ImportError:
            raise DeviceError("install copass-edge[serial] for a serial reader") from None
        try:
            port = serial.Serial(self.device, self.baud, timeout=1.0)
        except (OSError, ValueError) as error:
            raise DeviceError(f"{self.device}: {error}") from None
        with contextlib.closing(port):
            while True:
                try:
                    line = await asyncio.to_thread(port.read_until, b"\n", LINE_MAX)
                except OSError as error:
                    raise DeviceError(f"{self.device}: {error}") from None
                if clean(line):
                    yield clean(line)


class SmartCards(Silent):
    """A PC/SC reader: the UID of each card, or the address that it holds (NDEF, type 4)."""

    GET_UID = (0xFF, 0xCA, 0x00, 0x00, 0x00)
    SELECT_NDEF = (0x00, 0xA4, 0x04, 0x00, 0x07, 0xD2, 0x76, 0x00, 0x00, 0x85, 0x01, 0x01, 0x00)
    SELECT_FILE = (0x00, 0xA4, 0x00, 0x0C, 0x02, 0xE1, 0x04)
    READ_LENGTH = (0x00, 0xB0, 0x00, 0x00, 0x02)

    def __init__(self, name: str) -> None:
        self.name = name

    async def texts(self) -> AsyncIterator[str]:
        try:
            from smartcard.Exceptions import CardConnectionException, NoCardException
            from smartcard.System import readers
        except ImportError:
            raise DeviceError("install copass-edge[pcsc] for a PC/SC reader") from None
        found = [one for one in readers() if self.name in str(one)]
        if not found:
            raise DeviceError(f"there is no PC/SC reader {self.name!r}: is pcscd running?")
        present = False
        while True:
            try:
                text = await asyncio.to_thread(self._read, found[0].createConnection())
            except (NoCardException, CardConnectionException):
                text = ""
            if text and not present:
                yield text
            present = bool(text)
            await asyncio.sleep(0.1)

    def _read(self, connection: Any) -> str:
        """What the card that lies there says. Raises the library's errors when there is none."""
        connection.connect()
        with contextlib.closing(_Disconnecting(connection)):
            if ok(connection.transmit(list(self.SELECT_NDEF))):
                address = self._read_address(connection)
                if address:
                    return address
            data, *_ = connection.transmit(list(self.GET_UID))
            return bytes(data).hex().upper()

    def _read_address(self, connection: Any) -> str:
        if not ok(connection.transmit(list(self.SELECT_FILE))):
            return ""
        answer = connection.transmit(list(self.READ_LENGTH))
        size = min(int.from_bytes(bytes(answer[0])), 0xF0) if ok(answer) else 0
        if size < 5:
            return ""
        answer = connection.transmit([0x00, 0xB0, 0x00, 0x02, size])
        return clean(bytes(answer[0])[5:]) if ok(answer) else ""


class _Disconnecting:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def close(self) -> None:
        self._connection.disconnect()


def ok(answer: Any) -> bool:
    """Whether a card answered 90 00."""
    return tuple(answer[1:]) == (0x90, 0x00)


class SimulatedRelay:
    """Opens nothing, and says so to whoever asks."""

    def __init__(self) -> None:
        self.openings: list[int] = []
        self.is_open = False

    async def open(self, milliseconds: int) -> None:
        self.openings.append(milliseconds)
        self.is_open = True
        try:
            await asyncio.sleep(milliseconds / 1000)
        finally:
            self.is_open = False

    def close(self) -> None:
        self.is_open = False


class GpioRelay:
    """A relay on a line of the board. At rest the line is inactive, and so it is when the program
    ends or dies: whether a lock without current is open or shut is the lock's (fail-safe or
    fail-secure), and a way out must not need any of this."""

    def __init__(self, chip: str, line: int, *, active_low: bool) -> None:
        try:
            import gpiod
            from gpiod.line import Direction, Value
        except ImportError:
            raise DeviceError("install copass-edge[gpio] for a relay on GPIO") from None
        self._on, self._off, self._line = Value.ACTIVE, Value.INACTIVE, line
        try:
            self._request = gpiod.request_lines(
                f"/dev/{chip}",
                consumer="copass-reader",
                config={
                    line: gpiod.LineSettings(
                        direction=Direction.OUTPUT,
                        active_low=active_low,
                        output_value=Value.INACTIVE,
                    )
                },
            )
        except OSError as error:
            raise DeviceError(f"/dev/{chip} line {line}: {error.strerror or error}") from None

    async def open(self, milliseconds: int) -> None:
        self._request.set_value(self._line, self._on)
        try:
            await asyncio.sleep(milliseconds / 1000)
        finally:
            self._request.set_value(self._line, self._off)

    def close(self) -> None:
        self._request.set_value(self._line, self._off)
        self._request.release()


def make_input(text: str) -> Input:
    """The input that a configuration names. Raises DeviceError for none that there is."""
    kind, _, rest = text.partition(":")
    if kind == "stdin" and not rest:
        return Lines()
    if kind == "tcp" and rest.isdigit() and 0 < int(rest) < 65536:
        return Lines(int(rest))
    if kind == "evdev" and rest:
        return Wedge(rest)
    if kind == "serial" and rest:
        device, _, baud = rest.partition("@")
        if baud and not baud.isdigit():
            raise DeviceError("serial:<device>@<baud>, the baud rate in digits")
        return Serial(device, int(baud or 9600))
    if kind == "pcsc":
        return SmartCards(rest)
    raise DeviceError(
        f"{text!r} is no input: stdin, tcp:<port>, evdev:<device>, serial:<device>[@baud] or pcsc"
    )


def make_relay(text: str) -> Relay:
    """The relay that a configuration names. Raises DeviceError for none that there is."""
    if text == "simulated":
        return SimulatedRelay()
    parts = text.split(":")
    is_gpio = parts[0] == "gpio" and len(parts) in (3, 4) and parts[2].isdigit()
    if is_gpio and parts[3:] in ([], ["low"]):
        return GpioRelay(parts[1], int(parts[2]), active_low=len(parts) == 4)
    raise DeviceError(f"{text!r} is no relay: simulated, or gpio:<chip>:<line>[:low]")


async def read_for_ever(
    device: Input, handle: Callable[[str], Awaitable[None]], warn: Callable[[str], None]
) -> None:
    """Hand on what a device reads; one that is unplugged is looked for again."""
    while True:
        try:
            async for text in device.texts():
                await handle(text)
            return  # stdin has ended
        except DeviceError as error:
            warn(str(error))
        except OSError as error:
            warn(f"{type(error).__name__}: {error}")
        await asyncio.sleep(RETRY_S)
