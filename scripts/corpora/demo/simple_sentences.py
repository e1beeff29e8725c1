"""Sentences of one clause: statements and questions, as English-German pairs.

Each function draws one sentence from the grammar; its docstring shows an example.
"""

from __future__ import annotations

from dataclasses import replace

from demo.clauses import Grammar
from demo.grammar import Clause, Phrase, finish, noun_phrase
from demo.lexicon import BUYABLE, COMPARATIVES, PEOPLE, RELATED
from demo.settings import CITIES, FEMALE, MALE, MONTHS, PLACES, Adverbial, Place, number_words
from demo.verbs import BE, BELONG, COST, LIE, PUT, TRAFFIC, TRANSITIVE

Pair = tuple[str, str]  # English, German
VERB_BY_BASE = {verb.base: verb for verb in TRANSITIVE}
_THERE_PLACES = [place for place in PLACES if place.at.english not in ("at home", "in the mountains")]
_TOWNS = [place for place in PLACES if place.at.english in ("in the city", "in the village")] + CITIES


def sentence(english: str, german: str, mark: str = ".") -> Pair:
    """Returns two texts as sentences."""
    return finish(english, mark), finish(german, mark)


def statement(clause: Clause) -> Pair:
    """Returns a clause as a sentence in both languages."""
    return sentence(clause.english(), clause.german())


def question(clause: Clause, words: Pair = ("", "")) -> Pair:
    """Returns a clause as a question in both languages, with question words that are not its subject."""
    return sentence(clause.english_question(words[0]), clause.german_inverted(words[1]), "?")


def action(grammar: Grammar) -> Pair:
    """Anna is reading the newspaper."""
    return statement(grammar.action())


def yes_no_question(grammar: Grammar) -> Pair:
    """Does Anna know the doctor?"""
    return question(replace(grammar.action(subject=grammar.person(), negated=False), fronted=False))


def place_question(grammar: Grammar) -> Pair:
    """Where did the girl sing?"""
    if grammar.chance(0.3):
        return question(replace(grammar.living(grammar.person()), place=None), ("where", "wo"))
    if grammar.chance(0.4):
        clause = replace(grammar.motion(grammar.subject()), place=None, company=None, fronted=False)
        return question(clause, ("where", "wohin"))
    return question(replace(grammar.transitive(grammar.subject()), fronted=False), ("why", "warum"))


def object_question(grammar: Grammar) -> Pair:
    """Whom does Anna help? What did the man buy?"""
    clause = replace(grammar.transitive(grammar.subject()), objects=(), frequency=None, fronted=False)
    person = bool(set(clause.verb.objects) & set(PEOPLE))
    return question(clause, ("whom", {"acc": "wen", "dat": "wem"}[clause.verb.case]) if person else ("what", "was"))


def subject_question(grammar: Grammar) -> Pair:
    """Who has called the doctor?"""
    clause = replace(grammar.action(subject=Phrase("who", "whom", {"nom": "wer"}), negated=False), fronted=False)
    return sentence(clause.english(), clause.german(), "?")


def quantity_question(grammar: Grammar) -> Pair:
    """How many books did Anna buy?"""
    verb = VERB_BY_BASE[grammar.choice(("buy", "see", "have", "sell", "find", "need"))]
    things = noun_phrase(grammar.noun(*BUYABLE), "", plural=True)
    tense = "present" if verb.stative else grammar.choice(("past", "future", "perfect"))
    words = f"how many {things.object}", f"wie viele {things.german['acc']}"
    return question(Clause(grammar.subject(), verb, tense), words)


def personal_state(grammar: Grammar) -> Pair:
    """My sister was tired."""
    return statement(grammar.state(grammar.subject(), negated=grammar.chance(0.3)))


def comparison(grammar: Grammar) -> Pair:
    """Anna is older than Paul. My brother is as tall as my father."""
    first, second = grammar.person(), grammar.person()
    if grammar.chance(0.3):
        english, german = grammar.choice((("old", "alt"), ("tall", "groß"), ("famous", "berühmt")))
        phrase = Adverbial(f"as {english} as {second.subject}", f"so {german} wie {second.german['nom']}")
    else:
        english, german = grammar.choice(COMPARATIVES)
        phrase = Adverbial(f"{english} than {second.subject}", f"{german} als {second.german['nom']}")
    return statement(Clause(first, BE, "present", complement=phrase, negated=grammar.chance(0.15)))


def age(grammar: Grammar) -> Pair:
    """Anna is thirty-two years old."""
    english, german = number_words(grammar.random.randint(2, 99))
    complement = Adverbial(f"{english} years old", f"{german} Jahre alt")
    return statement(Clause(grammar.subject(), BE, "present", complement=complement))


def price(grammar: Grammar) -> Pair:
    """The coat costs 349 euros."""
    noun = grammar.noun("clothes", "small", "device", "vehicle", "furniture", "luggage")
    phrase = grammar.described(noun, determiners="the the this these", plain=0.5)
    english, german = number_words(grammar.random.randint(2, 99))
    if grammar.chance(0.4):
        english = german = str(grammar.random.randint(100, 999))
    tense = "present" if phrase.number == "pl" else grammar.choice(("present", "past"))
    complement = Adverbial(f"{english} euros", f"{german} Euro")
    return statement(Clause(phrase, COST, tense, complement=complement))


def birth(grammar: Grammar) -> Pair:
    """Anna was born on 12 May 1987 in Munich."""
    who, date = grammar.person(names=0.7), grammar.date(year=True)
    was, wurde = ("were", "wurden") if who.number == "pl" else ("was", "wurde")
    place: Place | None = grammar.choice(CITIES) if grammar.chance(0.4) else None
    tail = (f" {place.at.english}", f" {place.at.german}") if place else ("", "")
    return sentence(
        f"{who.subject} {was} born {date.english}{tail[0]}",
        f"{who.german['nom']} {wurde} {date.german}{tail[1]} geboren",
    )


def existence(grammar: Grammar) -> Pair:
    """There are twenty-five chairs in the hotel."""
    noun = grammar.noun("furniture", "vehicle", "animal", "building", "luggage", "opening")
    place = grammar.choice(_TOWNS if noun.kind == "building" else _THERE_PLACES)
    if grammar.chance(0.3):
        thing = grammar.described(noun, determiners="a no", plain=0.5)
    else:
        thing = noun_phrase(noun, "", plural=True, quantity=number_words(grammar.random.randint(2, 40)))
    verb = "are" if thing.number == "pl" else "is"
    return sentence(
        f"there {verb} {thing.object} {place.at.english}", f"{place.at.german} gibt es {thing.german['acc']}"
    )


def traffic(grammar: Grammar) -> Pair:
    """The train from Berlin will arrive at half past three."""
    vehicle = grammar.noun("transport")
    city = grammar.choice(CITIES)
    verb = grammar.choice(TRAFFIC)
    link = ("from", "aus") if verb.base == "arrive" else ("to", "nach")
    subject = noun_phrase(vehicle, grammar.choice(("the", "the", "this")))
    if grammar.chance(0.5) and vehicle.english in ("train", "bus"):
        tail = city.at.english.removeprefix("in "), city.at.german.removeprefix("in ")
        subject = subject.modified(f"{link[0]} {tail[0]}", f"{link[1]} {tail[1]}")
    clause = Clause(subject, verb, grammar.choice(("past", "future", "past")))
    if grammar.chance(0.25):
        return question(replace(clause, tense=grammar.choice(("past", "future", "present"))), ("when", "wann"))
    return statement(replace(clause, time=grammar.clock(), fronted=grammar.chance(0.2)))


def furniture(grammar: Grammar) -> Pair:
    """The book is lying on the table; Anna is putting it on the table: dative where, accusative where to."""
    thing = grammar.described(grammar.noun("text", "paper", "clothes"), determiners="the a my")
    support = grammar.described(grammar.noun("furniture"), determiners="the the my this", plain=0.7)
    preposition = grammar.choice((("on", "auf"), ("under", "unter"), ("next to", "neben")))
    place = {
        case: Adverbial(f"{preposition[0]} {support.object}", f"{preposition[1]} {support.german[case]}")
        for case in ("acc", "dat")
    }
    if grammar.chance(0.5):
        return statement(Clause(thing, LIE, grammar.choice(("progressive", "past")), place=place["dat"]))
    clause = Clause(grammar.subject(), PUT, "present", ((thing, "acc"),), place=place["acc"])
    return statement(grammar.tensed(clause, ("progressive", "past", "perfect", "future", "modal")))


def possession(grammar: Grammar) -> Pair:
    """The teacher's dog is old. Anna's car is red. This suitcase belongs to my uncle."""
    noun = grammar.noun("animal", "vehicle", "clothes", "device", "luggage")
    if grammar.chance(0.3):
        thing = grammar.described(noun, determiners="the this these")
        holder = grammar.person(names=0.3)
        return statement(Clause(thing, BELONG, "present", ((holder, "dat"),), negated=grammar.chance(0.3)))
    if grammar.chance(0.4):
        owner = grammar.choice([n for n in MALE + FEMALE if n[-1] not in "sxz"])
        forms = {case: f"{owner}s {form}" for case, form in noun_phrase(noun, "").german.items()}
    else:
        person = grammar.noun(*PEOPLE)
        related = ("my", "her", "his", "our") if person.english in RELATED else ("the",)
        holder = noun_phrase(person, grammar.choice(related))
        owner = holder.subject
        forms = {case: f"{form} {holder.german['gen']}" for case, form in noun_phrase(noun, "the").german.items()}
    english = f"{owner}'s {noun.english}"
    phrase = Phrase(english, english, forms, gender=noun.gender)
    if grammar.chance(0.5):
        return statement(grammar.quality(phrase, noun.kind, negated=grammar.chance(0.2)))
    verb = grammar.choice([v for v in TRANSITIVE if noun.kind in v.objects and v.case == "acc" and v.base != "have"])
    return statement(grammar.tensed(Clause(grammar.subject(), verb, "present", ((phrase, verb.case),))))


def weather(grammar: Grammar) -> Pair:
    """It will snow tomorrow."""
    clause = replace(grammar.weather(), fronted=False)
    if grammar.chance(0.6):
        clause = replace(clause, place=grammar.choice(CITIES + PLACES[-1:]).at)
    return statement(clause)


def clock_time(grammar: Grammar) -> Pair:
    """It is half past seven. Today is 3 May."""
    if grammar.chance(0.3):
        day, (english, german) = grammar.random.randint(1, 28), grammar.choice(MONTHS)
        return sentence(f"today is {day} {english}", f"heute ist der {day}. {german}")
    time = grammar.clock()
    return sentence(f"it is {time.english.removeprefix('at ')}", f"es ist {time.german.removeprefix('um ')}")
