# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Not even a type."""

from luks_image import Luks2, refuse

h = Luks2()
del h.segment["type"]
refuse(h.build(), "EBADMSG", "segment 0: \"type\" is missing")
