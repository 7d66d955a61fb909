# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A token nested deeper than anything known."""

import json

from luks_image import Luks2, refuse

h = Luks2()
text = json.dumps(h.json).replace('"tokens": {}', '"tokens": {"0": ' + "[" * 40 + "]" * 40 + "}")
h.text = [h.area(text), h.area(text)]
refuse(h.build(), "EBADMSG", "JSON: nesting too deep")
