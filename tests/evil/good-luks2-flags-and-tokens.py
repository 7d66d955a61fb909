# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Flags for activation and a token mean nothing to us."""

from luks_image import Luks2, accept

h = Luks2()
h.config["flags"] = ["allow-discards", "no-read-workqueue"]
h.config["requirements"] = {"mandatory": []}
h.json["tokens"]["0"] = {"type": "systemd-tpm2", "keyslots": ["0"], "tpm2-pcrs": [[1, 2], [3]]}
h.segment["flags"] = []
h.slot["priority"] = 2
accept(h.build())
