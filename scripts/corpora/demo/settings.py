"""Places, names, days and numbers of the demo grammar in both languages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Adverbial:
    """An adverbial that is a fixed string in both languages."""

    english: str
    german: str


@dataclass(frozen=True)
class Place:
    """A place as location (`at`) and as destination (`to`)."""

    at: Adverbial
    to: Adverbial


def _word_pairs(table: str) -> list[tuple[str, str]]:
    """Parses a table into (English, German) words; a word without a colon is the same in both."""
    return [(e, g or e) for e, _, g in (word.partition(":") for word in table.split())]


_PLACES = """
in the garden|im Garten|to the garden|in den Garten
in the kitchen|in der Küche|to the kitchen|in die Küche
at school|in der Schule|to school|in die Schule
in the city|in der Stadt|to the city|in die Stadt
in the village|im Dorf|to the village|ins Dorf
at the station|am Bahnhof|to the station|zum Bahnhof
at the market|auf dem Markt|to the market|auf den Markt
in the park|im Park|to the park|in den Park
in the shop|im Laden|to the shop|in den Laden
in the library|in der Bibliothek|to the library|in die Bibliothek
in the hospital|im Krankenhaus|to the hospital|ins Krankenhaus
in the theatre|im Theater|to the theatre|ins Theater
in the office|im Büro|to the office|ins Büro
in the forest|im Wald|to the forest|in den Wald
at the lake|am See|to the lake|zum See
at home|zu Hause|home|nach Hause
in the restaurant|im Restaurant|to the restaurant|ins Restaurant
at the university|an der Universität|to the university|zur Universität
on the beach|am Strand|to the beach|an den Strand
in the mountains|in den Bergen|to the mountains|in die Berge
"""
PLACES = [
    Place(Adverbial(a, b), Adverbial(c, d)) for a, b, c, d in (line.split("|") for line in _PLACES.strip().splitlines())
]
_CITIES = _word_pairs("""
Berlin Hamburg Munich:München Cologne:Köln Vienna:Wien Zurich:Zürich Leipzig Rome:Rom Prague:Prag London Paris
Geneva:Genf
""")
CITIES = [Place(Adverbial(f"in {e}", f"in {g}"), Adverbial(f"to {e}", f"nach {g}")) for e, g in _CITIES]
MALE = [
    "Paul", "Peter", "Jonas", "Felix", "Martin", "Oskar", "Simon", "David", "Anton", "Emil", "Thomas",
    "Jakob", "Karl", "Moritz",
]  # fmt: skip
FEMALE = [
    "Anna", "Maria", "Lena", "Julia", "Emma", "Clara", "Sophie", "Laura", "Nina", "Eva", "Hanna",
    "Lisa", "Marie", "Ida",
]  # fmt: skip
DAYS = _word_pairs("""
Monday:Montag Tuesday:Dienstag Wednesday:Mittwoch Thursday:Donnerstag Friday:Freitag Saturday:Samstag
Sunday:Sonntag
""")
MONTHS = _word_pairs("""
January:Januar February:Februar March:März April May:Mai June:Juni July:Juli August September October:Oktober
November December:Dezember
""")
_SMALL = _word_pairs("""
zero:null one:eins two:zwei three:drei four:vier five:fünf six:sechs seven:sieben eight:acht nine:neun
ten:zehn eleven:elf twelve:zwölf thirteen:dreizehn fourteen:vierzehn fifteen:fünfzehn sixteen:sechzehn
seventeen:siebzehn eighteen:achtzehn nineteen:neunzehn
""")
_ROUND = _word_pairs("""
twenty:zwanzig thirty:dreißig forty:vierzig fifty:fünfzig sixty:sechzig seventy:siebzig eighty:achtzig
ninety:neunzig
""")


def number_words(value: int) -> tuple[str, str]:
    """Returns a number from 0 to 99 in English and German words: 25 -> (twenty-five, fünfundzwanzig)."""
    if value < 20:
        return _SMALL[value]
    tens, ones = divmod(value, 10)
    english, german = _ROUND[tens - 2]
    if not ones:
        return english, german
    german_ones = "ein" if ones == 1 else _SMALL[ones][1]
    return f"{english}-{_SMALL[ones][0]}", f"{german_ones}und{german}"
