# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The second copy says a size that does not match where it is."""

from luks_image import KIB, Luks2, refuse

h = Luks2()
image = h.build()
image[5000] ^= 1
h.sizes[1] = 32 * KIB
image[h.size:2 * h.size] = h.copy(1)
refuse(image, "EBADMSG", "second copy: its size does not match its place")
