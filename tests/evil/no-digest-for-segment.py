# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""No proof of the key."""

from luks_image import Luks2, refuse

h = Luks2()
h.digest["segments"] = []
refuse(h.build(), "EBADMSG", "no digest for segment 0")
