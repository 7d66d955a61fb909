# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Header and data in different places."""

from luks_image import Luks1, refuse

h = Luks1()
h.payload = 0
refuse(h.build(), "EINVAL", "the data area begins at 0, inside the header")
