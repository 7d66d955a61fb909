# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Offset and size that overflow to a small number together."""

from luks_image import Luks2, refuse

h = Luks2()
h.slot["area"]["size"] = str(2 ** 64 - 4096)
refuse(h.build(), "EBADMSG", "keyslot 0 lies outside the keyslots area")
