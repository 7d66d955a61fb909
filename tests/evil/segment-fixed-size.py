# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A data area that ends before the image does."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["size"] = "524288"
refuse(h.build(), "ENOTSUP", "segment 0 has the fixed size 524288")
