# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The data area begins behind the image."""

from luks_image import Luks1, refuse

h = Luks1()
h.payload = 2 ** 32 - 1
refuse(h.build(), "EINVAL", "but the image ends at 4194304")
