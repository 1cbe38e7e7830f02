"""What an evaluation was asked and made with, in words, from its manifest."""

from collections.abc import Mapping
from typing import Any

from ..evaluation import Results

SHOWN_DIGITS = 16


def asked(results: Results) -> dict[str, str]:
    """Each attack with its settings in one line."""
    return {name: in_words(results, name) for name in results.records}


def in_words(results: Results, name: str) -> str:
    """Method, access, source, surrogate gradient, settings, and what they cost."""
    attack = results.attack(name)
    source = attack.get("source") or {}
    words = [attack["method"], attack["access"]]
    words += [f"from {source['name']}"] if source.get("name") else []
    told = ("surrogate", "variant", "precision") if attack["gradients"] else ("variant", "precision")
    words += [str(attack[key]) for key in told if attack.get(key)]
    settings = [f"{key} {shown(value)}" for key, value in attack.get("settings", {}).items() if value is not None]
    passes = [f"{attack[kind]:,} {kind} an image" for kind in ("gradients", "forwards") if attack[kind]]
    cost = results.budget(name)
    passes += [f"budget C {cost:,.0f}"] if cost is not None else []
    return "; ".join(", ".join(part) for part in (list(dict.fromkeys(words)), settings, passes) if part)


def made_with(results: Results) -> dict[str, str]:
    """The manifest in short."""
    identity, scoring = results.manifest["identity"], results.manifest["identity"]["scoring"]
    versions = results.manifest["versions"]
    return {
        "model": f"{results.model}, {identity['model']['kind']}, {digest(identity['model'])}",
        "images": f"{identity['data']['images']:,} of {identity['data']['name']}, {digest(identity['data'])}",
        "scoring": ", ".join(f"{key} {shown(value)}" for key, value in scoring.items()),
        "blocks": f"{identity['block']:,} images",
        "engine": f"{identity['engine']} on {identity['device']}"
        + (f", {identity['threads']} threads" if identity["threads"] else ""),
        "versions": "; then ".join(", ".join(f"{key} {value}" for key, value in each.items()) for each in versions),
        "seconds": f"{sum(results.seconds.values()):,.0f} of all processes together",
    }


def digest(part: Mapping[str, Any]) -> str:
    return f"fingerprint {part['fingerprint'][:SHOWN_DIGITS]}…"


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
