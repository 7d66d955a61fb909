# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# peers.py: the servers that are compared. Each has an image or a file of its own.

import os
import signal
import subprocess
import time

from lib import client, images, volumes

# What a server is called in tables and goals.
LABELS = {
    "ours": "rbdcrypt-nbd",
    "ours-daemon": "rbdcrypt-nbd, one daemon",
    "ours-plain": "rbdcrypt-nbd, no encryption",
    "qemu-librbd": "qemu-nbd, librbd's encryption",
    "qemu-luks": "qemu-nbd, QEMU's LUKS",
    "qemu-plain": "qemu-nbd, no encryption",
    "fio-rbd": "librbd by fio, no encryption, no NBD",
    "nbdkit-luks": "nbdkit, luks filter",
    "nbdkit-plain": "nbdkit, no encryption",
    "nbdkit-null": "nbdkit, null plugin",
    "ours-rados": "rbdcrypt-nbd, rados store",
    "ours-2": "rbdcrypt-nbd, 2 layers",
    "ours-4": "rbdcrypt-nbd, 4 layers",
    "reef": "qemu-nbd, Reef's librbd",
    "rbd-nbd": "rbd-nbd, librbd's encryption",
}


def connect(uri):
    """A client that holds its connection; it ends with the object."""
    # pylint: disable=import-outside-toplevel
    # Debian's Python has it; another may not.
    import nbd
    client_ = nbd.NBD()
    try:
        client_.connect_uri(uri)
        client_.pread(4096, 0)
    except nbd.Error as e:
        raise client.Failed(f"{uri}: {e}") from e
    return client_


class Server:
    """A process that serves one export on a unix socket."""

    is_client = False

    def __init__(self, name, argv, socket, size, env=None):
        self.name, self.argv, self.socket, self.size = name, argv, socket, size
        self.env = dict(os.environ, **(env or {}))
        self.uri = f"nbd+unix:///?socket={socket}"
        self.process = self.client = None

    def start(self):
        with open(self.socket + ".log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM"] + self.argv, env=self.env,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 60
        while not os.path.exists(self.socket):
            if self.process.poll() is not None or time.monotonic() > end:
                with open(self.socket + ".log", encoding="utf-8") as log:
                    raise client.Failed(f"{self.name} does not start: {log.read()}")
            time.sleep(0.02)
        return self

    @property
    def pid(self):
        return self.process.pid

    def cpu(self):
        return client.cpu_seconds(self.pid)

    def fio_target(self):
        return ["--ioengine=nbd", f"--uri={self.uri}"]

    def content(self):
        return client.sha256(["nbdcopy", "--no-extents", self.uri, "-"])

    def settle(self):
        """Until it answers, and goes on serving us: as a volume that is used is."""
        self.client = connect(self.uri)

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def memory(self):
        return volumes.proportional_bytes(self.pid)

    def stop(self):
        self.client = None
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Daemon(Server):
    """Our daemon of a host, which serves many volumes."""

    def __init__(self, program, key, folder):
        self.key, self.folder, self.clients = key, folder, []
        super().__init__("ours-daemon", [program, "daemon"], folder + "/control", 0,
                         {"RBDCRYPT_NBD_RUN_DIR": folder})

    def serve(self, spec, i):
        socket = f"{self.folder}/{i}.sock"
        images.call("env", f"RBDCRYPT_NBD_RUN_DIR={self.folder}", self.argv[0], "serve",
                    "--socket", socket, "--encryption-passphrase-file", self.key, spec)
        self.clients.append(connect(f"nbd+unix:///?socket={socket}"))

    def stop(self):
        self.clients.clear()
        super().stop()


class FioRbd:
    """fio's rbd engine: librbd with nothing around it."""

    name = "fio-rbd"
    is_client = True
    start_cpu = 0.0

    def __init__(self, image, size):
        self.image, self.size = image, size

    def fio_target(self):
        return ["--ioengine=rbd", "--clientname=admin", "--pool=rbd", f"--rbdname={self.image}"]

    def start(self):
        c = client.case("randread", 4096, 1)
        argv = client.fio_argv(self.fio_target(), c, "/dev/null") + ["--number_ios=1"]
        costs = sorted(client.run_timed(argv, stdout=subprocess.DEVNULL)[1] for _ in range(3))
        self.start_cpu = costs[1]
        return self

    def cpu(self):
        return 0.0

    def content(self):
        return client.sha256(["rbd", "export", "--no-progress", self.image, "-"])

    def stop(self):
        pass


class Maker:
    """Makes servers for the images of one run."""

    def __init__(self, work, program, key, size):
        self.work, self.program, self.key, self.size = work, program, key, size
        self.count = 0

    def _server(self, name, argv_of, env=None):
        self.count += 1
        socket = os.path.join(self.work, f"{self.count}.sock")
        return Server(name, argv_of(socket), socket, self.size, env)

    def ours(self, spec, name="ours", options=()):
        if name != "ours-plain":
            options = ["--encryption-passphrase-file", self.key] + list(options)
        return self._ours(name, spec, options)

    def _ours(self, name, spec, options):
        return self._server(
            name, lambda s: [self.program, "serve", "--foreground", "--socket", s] +
            list(options) + [spec], {"RBDCRYPT_NBD_RUN_DIR": os.path.join(self.work, "run")})

    def layered(self, spec, options):
        return self._ours("ours", spec, options)

    def other(self, name, argv_of):
        return self._server(name, argv_of)

    def daemon(self):
        folder = os.path.join(self.work, "daemon")
        os.makedirs(folder)
        return Daemon(self.program, self.key, folder)

    def _qemu(self, name, options):
        return self._server(
            name, lambda s: ["qemu-nbd", "--persistent", "--shared=16", "--socket", s,
                             "--object", f"secret,id=key,file={self.key}",
                             "--image-opts", options])

    def qemu_librbd(self, image, form="luks1"):
        return self._qemu("qemu-librbd", f"driver=rbd,pool=rbd,image={image},cache.direct=on,"
                          f"encrypt.format={images.QEMU_FORMAT[form]},encrypt.key-secret=key")

    def qemu_luks(self, image):
        return self._qemu("qemu-luks", "driver=luks,key-secret=key,cache.direct=on,"
                          f"file.driver=rbd,file.pool=rbd,file.image={image},"
                          "file.cache.direct=on")

    def qemu_plain(self, image):
        return self._qemu("qemu-plain", f"driver=rbd,pool=rbd,image={image},cache.direct=on")

    def qemu_luks_file(self, path):
        return self._qemu("qemu-luks", "driver=luks,key-secret=key,file.driver=file,"
                          f"file.filename={path}")

    def nbdkit(self, name, arguments):
        return self._server(name, lambda s: ["nbdkit", "-f", "-U", s] + arguments)

    def nbdkit_luks(self, path):
        return self.nbdkit("nbdkit-luks", ["--filter=luks", "file", path,
                                           f"passphrase=+{self.key}"])

    def nbdkit_plain(self, path):
        return self.nbdkit("nbdkit-plain", ["file", path])

    def nbdkit_null(self):
        return self.nbdkit("nbdkit-null", ["null", str(self.size)])
