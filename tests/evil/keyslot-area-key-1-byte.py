# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Key material under almost no key."""

from luks_image import Luks2, refuse

h = Luks2()
h.slot["area"]["key_size"] = 1
refuse(h.build(), "ENOTSUP", "keyslot 0: an area key of 1 bytes")
