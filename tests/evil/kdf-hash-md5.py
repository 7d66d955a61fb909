# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A hash that is broken."""

from luks_image import Luks2, refuse

h = Luks2()
h.slot["kdf"]["hash"] = "md5"
refuse(h.build(), "ENOTSUP", "keyslot 0 uses the hash")
