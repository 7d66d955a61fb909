# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Less room than the key material needs."""

from luks_image import KIB, Luks2, refuse

h = Luks2()
h.slot["area"]["size"] = str(128 * KIB)
refuse(h.build(), "EBADMSG", "keyslot 0 is smaller than its key material")
