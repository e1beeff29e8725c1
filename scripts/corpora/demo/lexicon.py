"""The English-German lexicon of the demo grammar, with inflection.

Regular forms are derived by rule; irregular ones are listed in the tables.
"""

from __future__ import annotations

from dataclasses import dataclass


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

    def decline(self, case: str, *, plural: bool) -> str:
        """Returns the German form in a case and number."""
        if plural:
            no_dative_n = self.german_plural.endswith(("n", "s"))
            return self.german_plural + ("n" if case == "dat" and not no_dative_n else "")
        if case != "nom" and self.genitive == self.german_plural:  # a weak noun: der Junge, den Jungen
            return self.german_plural
        return self.genitive if case == "gen" else self.german


def english_s(word: str) -> str:
    """Returns the regular plural of an English noun, or third person of a verb."""
    if word.endswith(("s", "x", "ch", "sh", "tomato", "potato")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


# A kind, then its nouns: "english [irregular plural]|gender german plural [genitive]".
_NOUNS = """
man
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
boy|m Junge Jungen Jungen
neighbour|m Nachbar Nachbarn Nachbarn
student|m Student Studenten Studenten
colleague|m Kollege Kollegen Kollegen
farmer|m Bauer Bauern Bauern
policeman policemen|m Polizist Polizisten Polizisten

woman
woman women|f Frau Frauen
aunt|f Tante Tanten
mother|f Mutter Mütter
sister|f Schwester Schwestern
daughter|f Tochter Töchter
grandmother|f Großmutter Großmütter

child
child children|n Kind Kinder Kindes
girl|n Mädchen Mädchen Mädchens

animal
dog|m Hund Hunde
cat|f Katze Katzen
horse|n Pferd Pferde
bird|m Vogel Vögel
cow|f Kuh Kühe
mouse mice|f Maus Mäuse

text
book|n Buch Bücher
letter|m Brief Briefe
report|m Bericht Berichte
story|f Geschichte Geschichten

paper
newspaper|f Zeitung Zeitungen

dish
soup|f Suppe Suppen
egg|n Ei Eier
sausage|f Wurst Würste
potato|f Kartoffel Kartoffeln

food
apple|m Apfel Äpfel
pear|f Birne Birnen
tomato|f Tomate Tomaten

baked
cake|m Kuchen Kuchen
pizza|f Pizza Pizzas

drink
coffee coffee|m Kaffee -
tea tea|m Tee -
milk milk|f Milch -
water water|n Wasser -
juice juice|m Saft -

clothes
coat|m Mantel Mäntel
dress|n Kleid Kleider
hat|m Hut Hüte
shirt|n Hemd Hemden
jacket|f Jacke Jacken

small
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

device
lamp|f Lampe Lampen
computer|m Computer Computer
radio|n Radio Radios

luggage
suitcase|m Koffer Koffer
box|f Kiste Kisten

opening
door|f Tür Türen
window|n Fenster Fenster

furniture
table|m Tisch Tische
chair|m Stuhl Stühle
shelf shelves|n Regal Regale
bed|n Bett Betten

vehicle
car|n Auto Autos
bicycle|n Fahrrad Fahrräder
boat|n Boot Boote

transport
train|m Zug Züge
bus|m Bus Busse
ship|n Schiff Schiffe
tram|f Straßenbahn Straßenbahnen

building
house|n Haus Häuser
church|f Kirche Kirchen
bridge|f Brücke Brücken
hotel|n Hotel Hotels
museum|n Museum Museen
tower|m Turm Türme
"""


def _noun(kind: str, line: str) -> Noun:
    left, right = line.split("|")
    english, *irregular = left.split()
    gender, german, plural, *genitive = right.split()
    return Noun(
        kind, english, (irregular or [english_s(english)])[0], gender, german, plural, (genitive or [german])[0]
    )


NOUNS = {
    kind: [_noun(kind, line) for line in lines]
    for kind, *lines in (block.split("\n") for block in _NOUNS.strip().split("\n\n"))
}
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
_ADJECTIVE_KIND = {**dict.fromkeys(PEOPLE, "person"), "baked": "food", "paper": "text"}


def adjectives(kind: str) -> list[Adjective]:
    """Returns the adjectives that go with a kind of noun; those of the kind "state" go with people."""
    return ADJECTIVES.get(_ADJECTIVE_KIND.get(kind, kind), ADJECTIVES["thing"])


COMPARATIVES = [
    ("older", "älter"), ("younger", "jünger"), ("taller", "größer"), ("happier", "glücklicher"),
    ("friendlier", "freundlicher"), ("faster", "schneller"), ("smaller", "kleiner"),
]  # fmt: skip
