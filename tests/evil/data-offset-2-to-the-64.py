# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""One more than 64 bits hold."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["offset"] = str(2 ** 64)
refuse(h.build(), "EBADMSG", "segment 0: \"offset\" is not a number")
