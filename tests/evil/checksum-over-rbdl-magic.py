# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The checksums are those of the magics that Ceph writes, not of the original ones."""

from luks_image import Luks2, refuse

h = Luks2()
image = h.build()
for i, magic in enumerate((b"RBDL\xba\xbe", b"LDBR\xba\xbe")):
    image[i * h.size:(i + 1) * h.size] = h.copy(i, magic)
refuse(image, "EBADMSG", "first copy: wrong checksum; second copy: wrong checksum")
