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


def statement(clause: Clause) -> Pair:
    """Returns a clause as a sentence in both languages."""
    return finish(clause.english()), finish(clause.german())


def action(grammar: Grammar) -> Pair:
    """Anna is reading the newspaper."""
    return statement(grammar.action())


def yes_no_question(grammar: Grammar) -> Pair:
    """Does Anna know the doctor?"""
    clause = replace(grammar.action(subject=grammar.person(), negated=False), fronted=False)
    return finish(clause.english_question(), "?"), finish(clause.german_question(), "?")


def place_question(grammar: Grammar) -> Pair:
    """Where did the girl sing?"""
    if grammar.chance(0.3):
        clause = replace(grammar.living(grammar.person()), place=None)
        words = ("where", "wo")
    elif grammar.chance(0.4):
        clause = replace(grammar.motion(grammar.subject()), place=None, company=None, fronted=False)
        words = ("where", "wohin")
    else:
        clause = replace(grammar.transitive(grammar.subject()), fronted=False)
        words = ("why", "warum")
    return finish(clause.english_question(words[0]), "?"), finish(clause.german_question(words[1]), "?")


def object_question(grammar: Grammar) -> Pair:
    """Whom does Anna help? What did the man buy?"""
    clause = replace(grammar.transitive(grammar.subject()), fronted=False)
    ((_, case),) = clause.objects
    person = bool(set(clause.verb.objects) & set(PEOPLE))
    words = ("whom", {"acc": "wen", "dat": "wem"}[case]) if person else ("what", "was")
    clause = replace(clause, objects=(), frequency=None)
    return finish(clause.english_question(words[0]), "?"), finish(clause.german_question(words[1]), "?")


def subject_question(grammar: Grammar) -> Pair:
    """Who has called the doctor?"""
    clause = replace(grammar.action(subject=Phrase("", "", {"nom": ""}), negated=False), fronted=False)
    english = clause.english_question("who", subject_asked=True)
    return finish(english, "?"), finish(clause.german_question("wer", subject_asked=True), "?")


def quantity_question(grammar: Grammar) -> Pair:
    """How many books did Anna buy?"""
    verb = VERB_BY_BASE[grammar.choice(("buy", "see", "have", "sell", "find", "need"))]
    things = noun_phrase(grammar.noun(*BUYABLE), "", plural=True)
    tense = "present" if verb.stative else grammar.choice(("past", "future", "perfect"))
    clause = Clause(grammar.subject(), verb, tense)
    english = clause.english_question(f"how many {things.object}")
    return finish(english, "?"), finish(clause.german_question(f"wie viele {things.german['acc']}"), "?")


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
    amount = grammar.random.randint(2, 99)
    english, german = number_words(amount)
    if grammar.chance(0.4):
        english = german = str(grammar.random.randint(100, 999))
    tense = "present" if phrase.number == "pl" else grammar.choice(("present", "past"))
    complement = Adverbial(f"{english} euros", f"{german} Euro")
    return statement(Clause(phrase, COST, tense, complement=complement))


def birth(grammar: Grammar) -> Pair:
    """Anna was born on 12 May 1987 in Munich."""
    who, date = grammar.person(names=0.7), grammar.date(year=True)
    plural = who.number == "pl"
    place: Place | None = grammar.choice(CITIES) if grammar.chance(0.4) else None
    tail = (f" {place.at.english}", f" {place.at.german}") if place else ("", "")
    return (
        finish(f"{who.subject} {'were' if plural else 'was'} born {date.english}{tail[0]}"),
        finish(f"{who.german['nom']} {'wurden' if plural else 'wurde'} {date.german}{tail[1]} geboren"),
    )


def existence(grammar: Grammar) -> Pair:
    """There are twenty-five chairs in the hotel."""
    noun = grammar.noun("furniture", "vehicle", "animal", "building", "luggage", "opening")
    place = grammar.choice(_TOWNS if noun.kind == "building" else _THERE_PLACES)
    if grammar.chance(0.3):
        thing, verb = grammar.described(noun, determiners="a no", plain=0.5), "is"
    else:
        quantity = number_words(grammar.random.randint(2, 40))
        thing, verb = noun_phrase(noun, "", plural=True, quantity=quantity), "are"
    if thing.number == "pl":
        verb = "are"
    english = f"there {verb} {thing.object} {place.at.english}"
    return finish(english), finish(f"{place.at.german} gibt es {thing.german['acc']}")


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
        clause = replace(clause, tense=grammar.choice(("past", "future", "present")))
        question = replace(clause, time=None)
        return finish(question.english_question("when"), "?"), finish(question.german_question("wann"), "?")
    return statement(replace(clause, time=grammar.clock(), fronted=grammar.chance(0.2)))


def furniture(grammar: Grammar) -> Pair:
    """The book is lying on the table; Anna is putting it on the table: dative where, accusative where to."""
    thing = grammar.described(grammar.noun("text", "paper", "clothes"), determiners="the a my")
    support = grammar.described(grammar.choice(grammar.supports), determiners="the the my this", plain=0.7)
    preposition = grammar.choice((("on", "auf"), ("under", "unter"), ("next to", "neben")))
    place = {
        case: Adverbial(f"{preposition[0]} {support.object}", f"{preposition[1]} {support.german[case]}")
        for case in ("acc", "dat")
    }
    if grammar.chance(0.5):
        tense = grammar.choice(("progressive", "past"))
        return statement(Clause(thing, LIE, tense, place=place["dat"]))
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
        owner_name = grammar.choice([n for n in MALE + FEMALE if n[-1] not in "sxz"])
        german = f"{owner_name}s {noun.german}"
        english = f"{owner_name}'s {noun.english}"
        weak = f"{owner_name}s {noun.decline('dat', plural=False)}"
        phrase = Phrase(english, english, {"nom": german, "acc": german, "dat": weak}, gender=noun.gender)
    else:
        owner = grammar.noun(*PEOPLE)
        related = ("my", "her", "his", "our") if owner.english in RELATED else ("the",)
        holder = noun_phrase(owner, grammar.choice(related))
        base = noun_phrase(noun, "the")
        forms = {case: f"{base.german[case]} {holder.german['gen']}" for case in ("nom", "acc", "dat")}
        english = f"{holder.subject}'s {noun.english}"
        phrase = Phrase(english, english, forms, gender=noun.gender)
    if grammar.chance(0.5):
        return statement(grammar.quality(phrase, noun.kind, negated=grammar.chance(0.2)))
    verb = grammar.choice([v for v in TRANSITIVE if noun.kind in v.objects and v.case == "acc" and v.base != "have"])
    return statement(grammar.tensed(Clause(grammar.subject(), verb, "present", ((phrase, verb.case),))))


def weather(grammar: Grammar) -> Pair:
    """It will snow tomorrow."""
    clause = replace(grammar.weather(), fronted=False)
    if grammar.chance(0.6):
        place = grammar.choice(CITIES + PLACES[-1:]).at
        clause = replace(clause, place=place)
    return statement(clause)


def clock_time(grammar: Grammar) -> Pair:
    """It is half past seven. Today is 3 May."""
    if grammar.chance(0.3):
        day, (english, german) = grammar.random.randint(1, 28), grammar.choice(MONTHS)
        return finish(f"today is {day} {english}"), finish(f"heute ist der {day}. {german}")
    time = grammar.clock()
    hour = time.english.removeprefix("at "), time.german.removeprefix("um ")
    return finish(f"it is {hour[0]}"), finish(f"es ist {hour[1]}")
