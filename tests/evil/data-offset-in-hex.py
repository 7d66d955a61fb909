# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A number in another base."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["offset"] = "0x100000"
refuse(h.build(), "EBADMSG", "segment 0: \"offset\" is not a number")
