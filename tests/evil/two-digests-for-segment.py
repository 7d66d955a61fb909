# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Two proofs for one key."""

from luks_image import Luks2, refuse

h = Luks2()
h.json["digests"]["1"] = dict(h.digest)
refuse(h.build(), "EBADMSG", "two digests for one segment")
