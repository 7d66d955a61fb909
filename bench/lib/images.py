# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# images.py: the private cluster, and its images: all fully written with the same plaintext.

import os
import subprocess

from lib import client

TESTS_LIB = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../tests/lib")
# Cheap to unlock: what a header costs is not what is measured.
ITERATIONS = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
# Where rbd's own formats have their data: 4 MiB (LUKS1) and 16 MiB (LUKS2).
DATA_MIB = {"luks1": 4, "luks2": 16}
# What QEMU calls them where librbd does the encryption.
QEMU_FORMAT = {"luks1": "luks", "luks2": "luks2"}


def call(*argv, patience=client.PATIENCE):
    try:
        p = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           check=False, timeout=patience)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise client.Failed(str(e)) from e
    if p.returncode != 0:
        raise client.Failed(f"{' '.join(argv)}: {p.stderr.strip()}")
    return p.stdout


def start_cluster(folder):
    """It ends with this process; CEPH_CONF leads to it from here on."""
    call("bash", "-c", 'exec "$@" >"$0"', folder + ".env", TESTS_LIB + "/cluster", "start",
         "--owner", str(os.getpid()), folder, "memstore")
    os.environ["CEPH_CONF"] = folder + "/ceph.conf"
    os.environ["CEPH_ARGS"] = ""


def make_key(path):
    with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="utf-8") as f:
        f.write("not a secret")


def make_header(path, form, key):
    """A LUKS header with a data area of nothing behind it."""
    call("truncate", "-s", f"{DATA_MIB[form]}M", path)
    argv = ["cryptsetup", "luksFormat", "-q", "--type", form, "--offset",
            str(DATA_MIB[form] * 2048), "--cipher", "aes-xts-plain64", "--key-size", "512"]
    argv += ITERATIONS if form == "luks2" else ITERATIONS[2:]
    argv += ["--sector-size", "4096"] if form == "luks2" else []
    call(*argv, path, key)


def import_image(path, name):
    call("rbd", "import", "--no-progress", path, name)


def make_volumes(n, header):
    """Small LUKS images volume-0 and on, by calls: two hundred commands take minutes."""
    # pylint: disable=import-outside-toplevel
    # Debian's Python has them; another may not.
    import rados
    import rbd
    with open(header, "rb") as f:
        # There is one keyslot; what follows is holes.
        head = f.read(1 << 20)
    with rados.Rados(conffile=os.environ["CEPH_CONF"]) as cluster, \
            cluster.open_ioctx("rbd") as pool:
        for i in range(n):
            rbd.RBD().create(pool, f"volume-{i}", 16 << 20)
            with rbd.Image(pool, f"volume-{i}") as image:
                image.write(head, 0)


def make_plaintext(path, size):
    with open(path, "wb") as f:
        left = size
        while left > 0:
            left -= f.write(os.urandom(min(left, 1 << 20)))


def make_raw(path, form, key, plaintext, size):
    """The raw bytes of an encrypted image, written by librbd's own encryption."""
    name = f"first-{form}"
    make_header(path, form, key)
    import_image(path, name)
    call("rbd", "resize", "--no-progress", "--size", f"{DATA_MIB[form] + (size >> 20)}M", name)
    call("qemu-img", "convert", "-n", "-f", "raw", "--object",
         f"secret,id=key,file={key}", "--target-image-opts", plaintext,
         f"driver=rbd,pool=rbd,image={name},encrypt.format={QEMU_FORMAT[form]},encrypt.key-secret=key")
    os.unlink(path)
    call("rbd", "export", "--no-progress", name, path)
    call("rbd", "rm", "--no-progress", name)
