# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Bytes that are not UTF-8."""

from luks_image import Luks2, refuse

h = Luks2()
text = b'{"config": "\xff\xfe"}'
h.text = [h.area(text), h.area(text)]
refuse(h.build(), "EBADMSG", "JSON: ")
