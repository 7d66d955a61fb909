#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
"""Hierarchies of images, for the scripts that compare with Reef.

Headers are made by cryptsetup, with a key derivation that takes no time, and written where "rbd
encryption format" would, with the magics of formatted clones. Passphrase x is in the file
DIR/pass-x. Making them works with any release's librbd, loading only with Reef's.
"""
import contextlib
import os
import subprocess

import rados
import rbd

MIB = 1 << 20


class world:
    """What connect() has set: the cluster's configuration, its pool, and the folder for files."""
    conf = folder = pool = None


@contextlib.contextmanager
def connect(conf, folder, options=(), pool="rbd", user="client.admin"):
    with rados.Rados(conffile=conf, name=user) as cluster:
        for name, value in options:
            cluster.conf_set(name, value)
        with cluster.open_ioctx(pool) as ioctx:
            world.conf, world.folder, world.pool = conf, folder, ioctx
            yield ioctx


def format_number(name):
    return getattr(rbd, f"RBD_ENCRYPTION_FORMAT_{name.upper()}")


def passphrase(name):
    path = f"{world.folder}/pass-{name}"
    new = f"{path}.{os.getpid()}"
    with open(new, "w", encoding="ascii") as f:
        os.chmod(new, 0o600)
        f.write(f"passphrase {name}")
    os.rename(new, path)
    return path


def make_header(form, secret, offset, sector=4096):
    """The bytes before the data of a new volume with a key of its own."""
    path = f"{world.folder}/header.{os.getpid()}"
    with open(path, "wb") as f:
        f.truncate(offset + MIB)
    more = []
    if form == "luks2":
        more = ["--sector-size", str(sector)]
        if offset < 16 * MIB:
            more += ["--luks2-metadata-size", "16k", "--luks2-keyslots-size", "512k"]
    subprocess.run(
        ["cryptsetup", "luksFormat", "-q", "--type", form, "--pbkdf", "pbkdf2", "--hash", "sha256",
         "--pbkdf-force-iterations", "1000", "--key-file", passphrase(secret), "--cipher",
         "aes-xts-plain64", "--key-size", "512", "--offset", str(offset // 512), *more, path],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(path, "rb") as f:
        return f.read(offset)


class Layer:
    """An image, and the passphrases that open it and its ancestors, child first."""

    def __init__(self, name, parent=None):
        self.name = name
        self.parent = parent
        self.secrets = list(parent.secrets) if parent else []
        if self.secrets:
            self.secrets.insert(0, self.secrets[0])

    def open(self, snap=None, read_only=False):
        return rbd.Image(world.pool, self.name, snapshot=snap, read_only=read_only)

    def format(self, form, secret, offset, sector=4096):
        header = bytearray(make_header(form, secret, offset, sector))
        if self.parent:
            header[0:4] = b"RBDL"
            if form == "luks2":
                second = int.from_bytes(header[8:16], "big")
                header[second:second + 4] = b"LDBR"
        with self.open() as image:
            image.write(bytes(header), 0)
        if self.parent:
            self.secrets = [secret] + self.parent.secrets
        else:
            self.secrets = [secret]
        return self


def create(name, size, order=20, unit=0, count=0, data_pool=None, features=0):
    features |= rbd.RBD_FEATURE_LAYERING | (rbd.RBD_FEATURE_STRIPINGV2 if count > 1 else 0)
    rbd.RBD().create(world.pool, name, size, order=order, old_format=False, features=features,
                     stripe_unit=unit, stripe_count=count, data_pool=data_pool)
    return Layer(name)


def clone(parent, name, order=20, unit=0, count=0, snap=None, features=0,
          data_pool=None):
    snap = snap or f"for-{name}"
    with parent.open() as image:
        image.create_snap(snap)
        image.protect_snap(snap)
    # A clone takes its parent's striping unless told, which need not fit.
    features |= rbd.RBD_FEATURE_LAYERING | (rbd.RBD_FEATURE_STRIPINGV2 if count > 1 else 0)
    rbd.RBD().clone(world.pool, parent.name, snap, world.pool, name, features, order=order,
                    stripe_unit=unit or 1 << order, stripe_count=count or 1, data_pool=data_pool)
    return Layer(name, parent)


def load(image, formats, secrets):
    image.encryption_load2(tuple((format_number(f), f"passphrase {s}".encode()) for f, s in zip(formats, secrets)))


def opened(layer, snap=None, read_only=False):
    image = layer.open(snap, read_only)
    if layer.secrets:
        load(image, ["luks"] * len(layer.secrets), layer.secrets)
    return image


def scribble(layer, rnd, n):
    with opened(layer) as image:
        size = image.size()
        for _ in range(n):
            at = rnd.randrange(size)
            length = min(size - at, rnd.choice((512, 4096, 70000, 300000, 1500000)))
            if rnd.randrange(2):
                at -= at % 4096
            what = rnd.randrange(8)
            if what == 0:
                image.discard(at, length)
            elif what == 1:
                image.write_zeroes(at, length)
            else:
                image.write(rnd.randbytes(length), at)


def random_layout(rnd, encrypted):
    """Order, stripe unit and count, stripe period.

    No striping under encryption: Reef encrypts a run of bytes of an object with the tweaks of one
    range of the image, which it then is not, and reads back its own data only in the pieces in
    which it was written.
    """
    order = rnd.choice((17, 18, 19, 20, 21, 22))
    if encrypted or rnd.randrange(2):
        return order, 0, 0, 1 << order
    unit, count = (1 << order) >> rnd.choice((1, 2, 3)), rnd.choice((2, 3, 4))
    return order, unit, count, count << order


def random_format(layer, rnd, period):
    form = rnd.choice(("luks1", "luks2"))
    offset = rnd.choice((3, 4, 6)) * MIB
    offset = (offset + period - 1) // period * period
    layer.format(form, rnd.choice("uvw"), offset, rnd.choice((512, 4096)))
    return form
