"""An NTAG 424 DNA card as far as a reader sees it: programmed with a sheet, it writes messages."""

from dataclasses import dataclass
from typing import Any

from copass_tap import ntag424
from copass_tap.ntag424 import Picc


@dataclass
class NtagCard:
    """What the chip holds after ChangeKey, WriteData and ChangeFileSettings."""

    uid: bytes
    keys: dict[int, bytes]
    file: bytes
    settings: bytes
    readings: int = 0

    @classmethod
    def programmed(cls, sheet: dict[str, Any]) -> "NtagCard":
        """A blank card after the programmer has written the sheet, as the API gave it."""
        return cls(
            uid=bytes.fromhex(sheet["uid"]),
            keys={item["number"]: bytes.fromhex(item["key"]) for item in sheet["keys"]},
            file=bytes.fromhex(sheet["file_data"]),
            settings=bytes.fromhex(sheet["file_settings"]),
        )

    def read(self) -> str:
        """One reading of the NDEF file: the link with a new message (AN12196, chapter 3)."""
        option, rights, mirrors = self.settings[0], self.settings[1:3], self.settings[3]
        assert (option, rights, mirrors) == (0x40, b"\x00\xe0", 0xC1)
        file_read, meta_read = self.settings[4] & 0x0F, self.settings[5] >> 4
        picc_at, input_at, mac_at = (
            int.from_bytes(self.settings[begin : begin + 3], "little") for begin in (6, 9, 12)
        )
        assert input_at == mac_at, "the MAC covers no text"
        self.readings += 1
        picc = Picc(self.uid, self.readings)
        plain = b"\xc7" + self.uid + self.readings.to_bytes(3, "little") + b"noise"
        file = bytearray(self.file)
        hidden = ntag424.encrypt(self.keys[meta_read], plain).hex().upper().encode()
        file[picc_at : picc_at + len(hidden)] = hidden
        mac = ntag424.session_mac(self.keys[file_read], picc).hex().upper().encode()
        file[mac_at : mac_at + len(mac)] = mac
        length = int.from_bytes(file[:2], "big")
        record = bytes(file[2 : 2 + length])
        assert record[:2] == b"\xd1\x01"
        assert record[3:5] == b"U\x04"
        assert record[2] == len(record) - 4
        return "https://" + record[5:].decode()


def message_of(link: str) -> tuple[str, str]:
    """PICCData and MAC of a link, as a reader takes them from it."""
    fields = dict(item.split("=") for item in link.partition("?")[2].split("&"))
    return fields["e"], fields["c"]
