# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Lenient parsers take a comma before the brace; others do not."""

from luks_image import Luks2, refuse

h = Luks2()
text = '{"config": {},}'
h.text = [h.area(text), h.area(text)]
refuse(h.build(), "EBADMSG", "JSON: ")
