# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A digest for no keyslot."""

from luks_image import Luks2, refuse

h = Luks2()
del h.digest["keyslots"]
refuse(h.build(), "EBADMSG", "digest 0: \"keyslots\" is missing")
