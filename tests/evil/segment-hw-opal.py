# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Encryption by the drive."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["type"] = "hw-opal-crypt"
refuse(h.build(), "ENOTSUP", "segment 0 is of type hw-opal-crypt")
