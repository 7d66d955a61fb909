# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""LUKS headers made by hand, so that each script beside this one can spoil one thing.

A script is run as "python3 NAME.py FILE". It writes an image to FILE and prints what loading it
must give: "OK", or an errno name, a space, and words that the message must contain. Nothing here
needs cryptsetup, and no keyslot can be opened: this is about judging headers, before any key.
"""

import base64
import copy
import hashlib
import json
import struct
import sys

KIB = 1024
MIB = 1024 * 1024
STRIPES = 4000


def b64(n):
    return base64.b64encode(bytes(range(n))).decode()


def pbkdf2(iterations=1000):
    return {"type": "pbkdf2", "hash": "sha256", "iterations": iterations, "salt": b64(32)}


def argon2(time=4, memory=65536, cpus=2):
    return {"type": "argon2id", "time": time, "memory": memory, "cpus": cpus, "salt": b64(32)}


class Luks2:
    """A sound LUKS2 image; change .json, .size and so on, then build()."""

    def __init__(self):
        self.size = 16 * KIB  # of one copy
        self.image_size = 2 * MIB
        self.magics = [b"LUKS\xba\xbe", b"SKUL\xba\xbe"]
        self.sequence = [3, 3]
        self.checksum_name = [b"sha256", b"sha256"]
        self.version = [2, 2]
        self.uuid = b"d93a3a9b-1e54-415c-80de-72e8c19c614f"
        self.sizes = [None, None]  # what the copies claim, None: the truth
        self.offsets = [None, None]
        self.text = [None, None]  # JSON area as bytes, None: from .json
        self.area_offset = 2 * self.size
        self.json = {
            "keyslots": {"0": self.keyslot(0)},
            "tokens": {},
            "segments": {
                "0": {
                    "type": "crypt",
                    "offset": str(MIB),
                    "size": "dynamic",
                    "iv_tweak": "0",
                    "encryption": "aes-xts-plain64",
                    "sector_size": 4096,
                }
            },
            "digests": {
                "0": {
                    "type": "pbkdf2",
                    "keyslots": ["0"],
                    "segments": ["0"],
                    "hash": "sha256",
                    "iterations": 1000,
                    "salt": b64(32),
                    "digest": b64(32),
                }
            },
            "config": {
                "json_size": str(self.size - 4096),
                "keyslots_size": str(768 * KIB),
            },
        }

    def keyslot(self, n):
        return {
            "type": "luks2",
            "key_size": 64,
            "af": {"type": "luks1", "stripes": STRIPES, "hash": "sha256"},
            "area": {
                "type": "raw",
                "offset": str(self.area_offset + n * 256 * KIB),
                "size": str(252 * KIB),
                "encryption": "aes-xts-plain64",
                "key_size": 64,
            },
            "kdf": pbkdf2(),
        }

    def add_keyslot(self, n, is_bound=True):
        self.json["keyslots"][str(n)] = self.keyslot(n)
        if is_bound:
            self.json["digests"]["0"]["keyslots"].append(str(n))
        return self.json["keyslots"][str(n)]

    @property
    def segment(self):
        return self.json["segments"]["0"]

    @property
    def slot(self):
        return self.json["keyslots"]["0"]

    @property
    def digest(self):
        return self.json["digests"]["0"]

    @property
    def config(self):
        return self.json["config"]

    def area(self, text=None):
        """The JSON area: the text, and zeros."""
        if text is None:
            text = json.dumps(self.json)
        if isinstance(text, str):
            text = text.encode()
        room = self.size - 4096
        if len(text) > room:
            raise ValueError("the JSON text is too long")
        return text + bytes(room - len(text))

    def copy(self, i, magic=None):
        """One copy with its checksum, which is that of the original magic."""
        original = [b"LUKS\xba\xbe", b"SKUL\xba\xbe"][i]
        place = i * self.size
        size = self.sizes[i] if self.sizes[i] is not None else self.size
        offset = self.offsets[i] if self.offsets[i] is not None else place
        binary = struct.pack(
            ">6sHQQ48s32s64s40s48sQ184s64s",
            magic or original, self.version[i], size, self.sequence[i], b"",
            self.checksum_name[i], bytes([i]) * 64, self.uuid, b"", offset, b"", b"")
        binary += bytes(4096 - len(binary))
        text = self.text[i] if self.text[i] is not None else self.area()
        whole = bytearray(binary + text)
        self.seal(whole)
        if not magic:
            whole[0:6] = self.magics[i]
        return whole

    @staticmethod
    def seal(whole):
        whole[448:512] = bytes(64)
        whole[448:480] = hashlib.sha256(whole).digest()

    def build(self):
        image = bytearray(self.image_size)
        for i in (0, 1):
            image[i * self.size:(i + 1) * self.size] = self.copy(i)
        return image


class Luks1:
    """A sound LUKS1 image; change the attributes, then build()."""

    ACTIVE = 0x00AC71F3
    DISABLED = 0x0000DEAD

    def __init__(self):
        self.image_size = 4 * MIB
        self.magic = b"LUKS\xba\xbe"
        self.version = 1
        self.cipher, self.mode, self.hash = b"aes", b"xts-plain64", b"sha256"
        self.payload = 2 * MIB // 512
        self.key_bytes = 64
        self.digest_iterations = 1000
        self.uuid = b"d93a3a9b-1e54-415c-80de-72e8c19c614f"
        # state, iterations, offset of the key material in sectors, stripes
        self.keyslots = [[self.DISABLED, 0, 8 + 512 * i, STRIPES] for i in range(8)]
        self.keyslots[0][0:2] = [self.ACTIVE, 1000]

    def build(self):
        header = struct.pack(
            ">6sH32s32s32sII20s32sI40s", self.magic, self.version, self.cipher, self.mode,
            self.hash, self.payload, self.key_bytes, bytes(20), bytes(32),
            self.digest_iterations, self.uuid)
        for state, iterations, offset, stripes in self.keyslots:
            header += struct.pack(">II32sII", state, iterations, bytes(32), offset, stripes)
        image = bytearray(self.image_size)
        image[0:len(header)] = header
        return image


def older_copy(header, change):
    """The image with an older second copy that differs by change(json)."""
    other = copy.deepcopy(header)
    other.sequence[1] = header.sequence[0] - 1
    change(other.json)
    image = header.build()
    image[header.size:2 * header.size] = other.copy(1)
    return image


def emit(image, verdict):
    with open(sys.argv[1], "wb") as f:
        f.write(image)
    print(verdict)


def accept(image):
    emit(image, "OK")


def refuse(image, errno, words):
    emit(image, errno + " " + words)
