"""Language codes, normalized for the choice of tokenizer and stemming."""

_ISO_639_1 = {"zho": "zh", "chi": "zh", "cmn": "zh", "jpn": "ja", "kor": "ko", "eng": "en", "tha": "th"}


def primary_language(code: str | None) -> str | None:
    """Returns the two-letter code of `de`, `zh_CN` or `zho_Hans`; None if no language is given."""
    if not code:
        return None
    primary = code.lower().replace("_", "-").split("-")[0]
    return _ISO_639_1.get(primary, primary)
