# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A size between those that the format allows."""

from luks_image import KIB, Luks2, refuse

h = Luks2()
h.sizes = [20 * KIB, 20 * KIB]
refuse(h.build(), "EBADMSG", "first copy: impossible size")
