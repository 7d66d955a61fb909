# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A segment that is not encrypted."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["type"] = "linear"
refuse(h.build(), "ENOTSUP", "segment 0 is of type linear")
