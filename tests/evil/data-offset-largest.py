# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The largest number that fits."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["offset"] = str(2 ** 64 - 1)
refuse(h.build(), "EINVAL", "but the image ends at 2097152")
