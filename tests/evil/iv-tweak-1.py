# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Sector numbers that do not begin at 0."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["iv_tweak"] = "1"
refuse(h.build(), "ENOTSUP", "segment 0 has its sector numbers shifted by 1")
