"""The English-German lexicon of the demo grammar, with inflection.

Regular forms are derived by rule; irregular ones are listed in the tables.
"""

from __future__ import annotations

from dataclasses import dataclass

CASES = ("nom", "acc", "dat", "gen")


@dataclass(frozen=True)
class Noun:
    """A noun in both languages; `kind` is its semantic class, `gender` is German (m, f, n)."""

    kind: str
    english: str
    english_plural: str
    gender: str
    german: str
    german_plural: str
    genitive: str
    weak: bool

    def decline(self, case: str, *, plural: bool) -> str:
        """Returns the German form in a case and number."""
        if plural:
            no_dative_n = self.german_plural.endswith(("n", "s"))
            return self.german_plural + ("n" if case == "dat" and not no_dative_n else "")
        if self.weak and case != "nom":
            return self.german_plural
        return self.genitive if case == "gen" else self.german


def _nouns(kind: str, table: str, *, weak: bool = False) -> list[Noun]:
    found = []
    for line in table.strip().splitlines():
        left, right = line.split("|")
        english, *irregular = left.split()
        gender, german, plural, *genitive = right.split()
        english_plural = irregular[0] if irregular else english_s(english)
        found.append(Noun(kind, english, english_plural, gender, german, plural, "".join(genitive) or german, weak))
    return found


def english_s(word: str) -> str:
    """Returns the regular plural of an English noun, or third person of a verb."""
    if word.endswith(("s", "x", "ch", "sh", "tomato", "potato")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


_MEN = """
man men|m Mann Männer Mannes
teacher|m Lehrer Lehrer Lehrers
doctor|m Arzt Ärzte Arztes
friend|m Freund Freunde Freundes
uncle|m Onkel Onkel Onkels
father|m Vater Väter Vaters
brother|m Bruder Brüder Bruders
son|m Sohn Söhne Sohnes
baker|m Bäcker Bäcker Bäckers
guest|m Gast Gäste Gastes
"""
_WEAK_MEN = """
boy|m Junge Jungen Jungen
neighbour|m Nachbar Nachbarn Nachbarn
student|m Student Studenten Studenten
colleague|m Kollege Kollegen Kollegen
farmer|m Bauer Bauern Bauern
policeman policemen|m Polizist Polizisten Polizisten
"""
_WOMEN = """
woman women|f Frau Frauen
aunt|f Tante Tanten
mother|f Mutter Mütter
sister|f Schwester Schwestern
daughter|f Tochter Töchter
grandmother|f Großmutter Großmütter
"""
_CHILDREN = """
child children|n Kind Kinder Kindes
girl|n Mädchen Mädchen Mädchens
"""
_ANIMALS = """
dog|m Hund Hunde
cat|f Katze Katzen
horse|n Pferd Pferde
bird|m Vogel Vögel
cow|f Kuh Kühe
mouse mice|f Maus Mäuse
"""
_TEXTS = """
book|n Buch Bücher
letter|m Brief Briefe
report|m Bericht Berichte
story|f Geschichte Geschichten
"""
_PAPERS = """
newspaper|f Zeitung Zeitungen
"""
_DISHES = """
soup|f Suppe Suppen
egg|n Ei Eier
sausage|f Wurst Würste
potato|f Kartoffel Kartoffeln
"""
_FOODS = """
apple|m Apfel Äpfel
pear|f Birne Birnen
tomato|f Tomate Tomaten
"""
_BAKED = """
cake|m Kuchen Kuchen
pizza|f Pizza Pizzas
"""
_DRINKS = """
coffee coffee|m Kaffee -
tea tea|m Tee -
milk milk|f Milch -
water water|n Wasser -
juice juice|m Saft -
"""
_CLOTHES = """
coat|m Mantel Mäntel
dress|n Kleid Kleider
hat|m Hut Hüte
shirt|n Hemd Hemden
jacket|f Jacke Jacken
"""
_SMALL = """
key|m Schlüssel Schlüssel
bag|f Tasche Taschen
bottle|f Flasche Flaschen
cup|f Tasse Tassen
plate|m Teller Teller
knife knives|n Messer Messer
picture|n Bild Bilder
umbrella|m Regenschirm Regenschirme
gift|n Geschenk Geschenke
ball|m Ball Bälle
flower|f Blume Blumen
"""
_DEVICES = """
lamp|f Lampe Lampen
computer|m Computer Computer
radio|n Radio Radios
"""
_LUGGAGE = """
suitcase|m Koffer Koffer
box|f Kiste Kisten
"""
_OPENINGS = """
door|f Tür Türen
window|n Fenster Fenster
"""
_FURNITURE = """
table|m Tisch Tische
chair|m Stuhl Stühle
shelf shelves|n Regal Regale
bed|n Bett Betten
"""
_PRIVATE_VEHICLES = """
car|n Auto Autos
bicycle|n Fahrrad Fahrräder
boat|n Boot Boote
"""
_PUBLIC_VEHICLES = """
train|m Zug Züge
bus|m Bus Busse
ship|n Schiff Schiffe
tram|f Straßenbahn Straßenbahnen
"""
_BUILDINGS = """
house|n Haus Häuser
church|f Kirche Kirchen
bridge|f Brücke Brücken
hotel|n Hotel Hotels
museum|n Museum Museen
tower|m Turm Türme
"""

NOUNS: list[Noun] = [
    *_nouns("man", _MEN),
    *_nouns("man", _WEAK_MEN, weak=True),
    *_nouns("woman", _WOMEN),
    *_nouns("child", _CHILDREN),
    *_nouns("animal", _ANIMALS),
    *_nouns("text", _TEXTS),
    *_nouns("paper", _PAPERS),
    *_nouns("dish", _DISHES),
    *_nouns("food", _FOODS),
    *_nouns("baked", _BAKED),
    *_nouns("drink", _DRINKS),
    *_nouns("clothes", _CLOTHES),
    *_nouns("small", _SMALL),
    *_nouns("device", _DEVICES),
    *_nouns("luggage", _LUGGAGE),
    *_nouns("opening", _OPENINGS),
    *_nouns("furniture", _FURNITURE),
    *_nouns("vehicle", _PRIVATE_VEHICLES),
    *_nouns("transport", _PUBLIC_VEHICLES),
    *_nouns("building", _BUILDINGS),
]
PEOPLE = ("man", "woman", "child")
UNIQUE = ("father", "mother")  # no plural: one has one
# Nouns that take a possessive: my uncle, but not my policeman
RELATED = (
    "teacher", "doctor", "friend", "uncle", "father", "brother", "son", "neighbour", "colleague", "aunt",
    "mother", "sister", "daughter", "grandmother", "child", "guest",
)  # fmt: skip
THINGS = ("text", "paper", "clothes", "small", "device", "luggage")
EDIBLE = ("dish", "food", "baked")
BUYABLE = (*THINGS, "food", "baked", "furniture", "vehicle")

# Adjectives: English, German, and the German stem before an ending if it differs.
_ADJECTIVES = {
    "person": "old:alt young:jung friendly:freundlich tall:groß famous:berühmt happy:glücklich sad:traurig",
    "state": "tired:müde ill:krank hungry:hungrig happy:glücklich sad:traurig busy:beschäftigt",
    "animal": "old:alt young:jung big:groß small:klein black:schwarz white:weiß brown:braun",
    "thing": "old:alt new:neu big:groß small:klein red:rot blue:blau green:grün black:schwarz white:weiß "
    "beautiful:schön expensive:teuer:teur cheap:billig heavy:schwer",
    "text": "old:alt new:neu long:lang short:kurz interesting:interessant important:wichtig",
    "food": "fresh:frisch big:groß small:klein",
    "dish": "warm:warm cold:kalt fresh:frisch",
    "drink": "cold:kalt warm:warm fresh:frisch",
    "building": "old:alt new:neu big:groß small:klein beautiful:schön famous:berühmt",
}


@dataclass(frozen=True)
class Adjective:
    """An adjective; `stem` is the German form that endings are added to."""

    english: str
    german: str
    stem: str


ADJECTIVES = {
    kind: [Adjective(e, g, (s or [g])[0]) for e, g, *s in (word.split(":") for word in words.split())]
    for kind, words in _ADJECTIVES.items()
}
ADJECTIVE_KIND = {
    **dict.fromkeys(PEOPLE, "person"),
    **dict.fromkeys(("food", "baked"), "food"),
    "dish": "dish", "animal": "animal", "text": "text", "paper": "text",
    "drink": "drink", "building": "building",
}  # fmt: skip
COMPARATIVES = [
    ("older", "älter"), ("younger", "jünger"), ("taller", "größer"), ("happier", "glücklicher"),
    ("friendlier", "freundlicher"), ("faster", "schneller"), ("smaller", "kleiner"),
]  # fmt: skip
