# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Key material behind the keyslots area."""

from luks_image import Luks2, MIB, refuse

h = Luks2()
h.slot["area"]["offset"] = str(MIB)
refuse(h.build(), "EBADMSG", "keyslot 0 lies outside the keyslots area")
