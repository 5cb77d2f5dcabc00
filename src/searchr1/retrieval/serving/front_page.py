"""The search page of the server, and the headers that keep it harmless."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files


def load_page() -> tuple[bytes, dict[str, str]]:
    """The page and its headers: nothing but its own script and style runs, and it talks to nobody but its server."""
    text = (files("searchr1.retrieval.serving") / "front_page.html").read_text(encoding="utf-8")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_digest(text, 'script')}",
            f"style-src {_digest(text, 'style')}",
            "connect-src 'self'",
            "img-src data:",  # the empty icon, so that no browser asks for one
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return text.encode(), {
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }


def _digest(text: str, tag: str) -> str:
    """The one inline ``tag`` of the page, as a Content-Security-Policy allows it."""
    (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"
