# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A member of the future."""

from luks_image import Luks2, refuse

h = Luks2()
h.slot["mode"] = "reencrypt"
refuse(h.build(), "ENOTSUP", "keyslot 0 has the unknown member")
