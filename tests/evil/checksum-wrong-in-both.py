# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Both checksums are wrong."""

from luks_image import Luks2, refuse

h = Luks2()
image = h.build()
image[5000] ^= 1
image[h.size + 5000] ^= 1
refuse(image, "EBADMSG", "first copy: wrong checksum; second copy: wrong checksum")
