# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Flags that are no list."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["flags"] = "in-reencryption"
refuse(h.build(), "EBADMSG", "\"flags\" is not an array")
