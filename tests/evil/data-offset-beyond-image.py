# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The data area begins behind the image."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["offset"] = str(1 << 40)
refuse(h.build(), "EINVAL", "the data area begins at 1099511627776, but the image ends at 2097152")
