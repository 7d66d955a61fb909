# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Every keyslot was erased."""

from luks_image import Luks2, refuse

h = Luks2()
h.json["keyslots"] = {}
h.digest["keyslots"] = []
refuse(h.build(), "ENOTSUP", "no keyslot in use")
