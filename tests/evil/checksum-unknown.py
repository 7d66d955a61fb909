# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A checksum nobody writes."""

from luks_image import Luks2, refuse

h = Luks2()
h.checksum_name = [b"sha1", b"md5"]
refuse(h.build(), "EBADMSG", "unknown checksum")
