# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Nothing is whole: the first copy is damaged, the second of another version."""

from luks_image import Luks2, refuse

h = Luks2()
h.version[1] = 1
image = h.build()
image[5000] ^= 1
refuse(image, "EBADMSG", "first copy: wrong checksum; second copy: wrong version")
