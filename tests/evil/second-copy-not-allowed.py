# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""An older second copy that is valid, but not allowed, might be the one another client repairs from."""

from luks_image import Luks2, older_copy, refuse

h = Luks2()


def change(json):
    json["segments"]["0"]["integrity"] = {"type": "hmac(sha256)"}


image = older_copy(h, change)
refuse(image, "ENOTSUP", "second copy: not supported: segment 0 has integrity protection")
