# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Key material that ends behind the keyslots area."""

from luks_image import KIB, Luks2, refuse

h = Luks2()
h.slot["area"]["size"] = str(800 * KIB)
refuse(h.build(), "EBADMSG", "keyslot 0 lies outside the keyslots area")
