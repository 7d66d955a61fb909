# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A keyslot that keeps the books of a reencryption."""

from luks_image import Luks2, refuse

h = Luks2()
h.add_keyslot(1)["type"] = "reencrypt"
refuse(h.build(), "ENOTSUP", "keyslot 1 is of type reencrypt")
