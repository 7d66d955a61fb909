# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A key derivation of the future."""

from luks_image import Luks2, refuse

h = Luks2()
h.slot["kdf"]["type"] = "scrypt"
refuse(h.build(), "ENOTSUP", "keyslot 0: the key derivation scrypt")
