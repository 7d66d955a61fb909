# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Authenticated encryption, which needs dm-integrity below."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["integrity"] = {"type": "hmac(sha256)", "journal_encryption": "none", "journal_integrity": "none"}
refuse(h.build(), "ENOTSUP", "segment 0 has integrity protection")
