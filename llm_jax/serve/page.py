"""The page at `/`: one document without anything from elsewhere."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib.resources import files

from starlette.responses import Response


@functools.cache
def _content() -> str:
    page, style, script, tokens = (
        files("llm_jax.serve").joinpath(name).read_text("utf-8")
        for name in ("page.html", "page.css", "page.js", "page_tokens.js")
    )
    page = page.replace("<style></style>", f"<style>\n{style}</style>")
    return page.replace("<script></script>", f"<script>\n{script}\n{tokens}</script>")


@functools.cache
def policy() -> str:
    """Content-Security-Policy: the page's own style and script by their digests, nothing else."""
    rules = {"style": "style-src", "script": "script-src"}
    parts = [
        "default-src 'none'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    for tag, rule in rules.items():
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", _content(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        parts.append(f"{rule} 'sha256-{digest}'")
    return "; ".join([*parts, "frame-ancestors 'none'"])


def response() -> Response:
    headers = {
        "Content-Security-Policy": policy(),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return Response(_content(), headers=headers, media_type="text/html; charset=utf-8")
