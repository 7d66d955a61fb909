# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A digest of the future."""

from luks_image import Luks2, refuse

h = Luks2()
h.digest["type"] = "argon2id"
refuse(h.build(), "ENOTSUP", "digest 0 is of type argon2id")
