# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The JSON area is full to its last byte."""

from luks_image import Luks2, refuse

h = Luks2()
full = b"{" + b" " * (h.size - 4096 - 2) + b"}"
h.text = [full, full]
refuse(h.build(), "EBADMSG", "the JSON area is not terminated")
