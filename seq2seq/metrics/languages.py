"""What a language code says to the metrics."""

_ISO_639_1 = {"zho": "zh", "chi": "zh", "cmn": "zh", "jpn": "ja", "kor": "ko", "eng": "en", "tha": "th"}


def primary_language(code: str | None) -> str | None:
    """The two-letter code in `de`, `zh_CN` or `zho_Hans`; None where no language is stated."""
    if not code:
        return None
    primary = code.lower().replace("_", "-").split("-")[0]
    return _ISO_639_1.get(primary, primary)
