# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""An area of another type."""

from luks_image import Luks2, refuse

h = Luks2()
h.slot["area"]["type"] = "journal"
refuse(h.build(), "ENOTSUP", "keyslot 0: an area of type journal")
