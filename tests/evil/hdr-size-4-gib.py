# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Copies of four gigabytes."""

from luks_image import Luks2, refuse

h = Luks2()
h.sizes = [4 << 30, 4 << 30]
refuse(h.build(), "EBADMSG", "first copy: impossible size")
