# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A number that is not whole."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["sector_size"] = 4096.5
refuse(h.build(), "EBADMSG", "segment 0: \"sector_size\" is missing or not of type int")
