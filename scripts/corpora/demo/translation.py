"""English-German sentence pairs from a hand-written grammar.

`pairs(seed)` streams them for ever, always the same ones for the same seed. An English sentence has one
German translation: the mapping is a function of the English words, so that a model can learn it completely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from demo.clauses import Grammar
from demo.grammar import Clause, Phrase, finish, noun_phrase, pronoun, pronoun_for, relative_pronoun
from demo.lexicon import ADJECTIVES, BUYABLE, COMPARATIVES, NOUNS, PEOPLE, RELATED
from demo.settings import CITIES, FEMALE, MALE, MONTHS, PLACES, Adverbial, Place, number_words
from demo.verbs import BE, BELONG, COST, LIE, PUT, TRAFFIC, TRANSITIVE

Pair = tuple[str, str]
_THERE_PLACES = [place for place in PLACES if place.at.english not in ("at home", "in the mountains")]
_TOWNS = [place for place in PLACES if place.at.english in ("in the city", "in the village")] + CITIES
OPEN_CLASS = frozenset([*MALE, *FEMALE, *(word for n in range(100) for word in number_words(n))])
_SCALES = (
    {"big", "small"}, {"old", "new"}, {"old", "young"}, {"expensive", "cheap"}, {"long", "short"},
    {"red", "blue", "green", "black", "white", "brown"},
)  # fmt: skip
_CONTENT_WORDS = {
    *MALE,
    *FEMALE,
    *(noun.english for noun in NOUNS),
    *(adjective.english for group in ADJECTIVES.values() for adjective in group),
}
_BY_NAME = {verb.base: verb for verb in TRANSITIVE}


def statement(clause: Clause) -> Pair:
    """A clause as a sentence in both languages."""
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
    verb = _BY_NAME[grammar.choice(("buy", "see", "have", "sell", "find", "need"))]
    things = noun_phrase(grammar.noun(*BUYABLE), "", plural=True)
    tense = "present" if verb.stative else grammar.choice(("past", "future", "perfect"))
    clause = Clause(grammar.subject(), verb, tense)
    english = clause.english_question(f"how many {things.object}")
    return finish(english, "?"), finish(clause.german_question(f"wie viele {things.german['acc']}"), "?")


def because(grammar: Grammar) -> Pair:
    """Anna stays at home because she is ill."""
    subject = grammar.person()
    known = subject.refers and grammar.chance(0.75)
    after = pronoun(subject.refers if known else grammar.choice(("he", "she", "they", "I", "we")))
    main = grammar.action(subject=subject, negated=grammar.chance(0.15))
    cause = grammar.reason(after, main)
    words = grammar.choice((("because", "weil"), ("because", "weil"), ("although", "obwohl")))
    english = f"{main.english()} {words[0]} {cause.english()}"
    return finish(english), finish(f"{main.german()}, {words[1]} {cause.german_final()}")


def condition(grammar: Grammar) -> Pair:
    """If it rains, Anna will stay at home."""
    who = grammar.subject()
    if grammar.chance(0.4):
        verb, german = grammar.choice((("rains", "regnet"), ("snows", "schneit")))
        english_if, german_if = f"it {verb}", f"es {german}"
    else:
        clause = grammar.state(grammar.person(), negated=grammar.chance(0.2))
        clause = replace(clause, tense="present")
        english_if, german_if = clause.english(), clause.german_final()
    main = grammar.action(subject=who, negated=grammar.chance(0.2))
    while main.verb.stative:
        main = grammar.action(subject=who, negated=grammar.chance(0.2))
    main = replace(main, tense="future", modal=None, frequency=None, time=None, fronted=False)
    if grammar.chance(0.5):
        english = f"if {english_if}, {main.english()}"
        return finish(english), finish(f"wenn {german_if}, {main.german_inverted()}")
    return finish(f"{main.english()} if {english_if}"), finish(f"{main.german()}, wenn {german_if}")


def reported(grammar: Grammar) -> Pair:
    """Paul believes that Anna has sold the car."""
    verbs = (
        ("says that", "say that", "sagt", "sage", "sagen"),
        ("believes that", "believe that", "glaubt", "glaube", "glauben"),
        ("hopes that", "hope that", "hofft", "hoffe", "hoffen"),
        ("knows that", "know that", "weiß", "weiß", "wissen"),
    )
    third, base, *german = grammar.choice(verbs)
    who = grammar.subject()
    said = replace(grammar.action(subject=grammar.person()), fronted=False)
    finite = dict(zip(("3sg", "1sg", "pl"), german, strict=True))[who.number]
    english = f"{who.subject} {third if who.number == '3sg' else base} {said.english()}"
    return finish(english), finish(f"{who.german['nom']} {finite}, dass {said.german_final()}")


def past_when(grammar: Grammar) -> Pair:
    """When Anna arrived, the children were sleeping: a single event in the past, German als."""
    events = (("arrived", "ankam", "ankamen"), ("came home", "nach Hause kam", "nach Hause kamen"))
    event = grammar.choice(events)
    who = grammar.person()
    german_event = event[2] if who.number == "pl" else event[1]
    main = grammar.action(negated=False)
    while main.verb.past == main.verb.base or main.verb.stative:
        main = grammar.action(negated=False)
    main = replace(main, tense="past", modal=None, frequency=None, time=None, fronted=False)
    when_english = f"when {who.subject} {event[0]}"
    return (
        finish(f"{when_english}, {main.english()}"),
        finish(f"als {who.german['nom']} {german_event}, {main.german_inverted()}"),
    )


def antecedent(grammar: Grammar) -> Pair:
    """Anna is buying the coat because it is cheap: it takes the gender of the German noun."""
    verbs = [v for v in TRANSITIVE if v.case == "acc" and set(v.objects) & {"clothes", "small", "device", "vehicle"}]
    verb = grammar.choice(verbs)
    noun = grammar.noun(*(kind for kind in verb.objects if kind not in PEOPLE))
    thing = grammar.described(noun, determiners="the the a my this", plain=1)
    clause = Clause(grammar.subject(), verb, "present", ((thing, verb.case),))
    clause = grammar.tensed(clause, ("progressive", "future", "past", "modal"))
    it = pronoun_for(thing)
    if grammar.chance(0.7):
        tense = "past" if clause.tense == "past" else "present"
        tail = grammar.quality(it, noun.kind, tense=tense, negated=grammar.chance(0.2))
        words, link = ("because", "because"), ", weil "
        if grammar.chance(0.3):
            words, link = ("although", "although"), ", obwohl "
        return finish(f"{clause.english()} {words[0]} {tail.english()}"), finish(
            f"{clause.german()}{link}{tail.german_final()}"
        )
    other = _BY_NAME[grammar.choice(("need", "see", "love", "like"))]
    tail = Clause(grammar.person(), other, "present", ((it, "acc"),), negated=grammar.chance(0.4))
    return finish(f"{clause.english()}, but {tail.english()}"), finish(f"{clause.german()}, aber {tail.german()}")


def _same_scale(first: Clause, second: Clause) -> bool:
    """Whether two predicates speak of the same: big and small, red and blue."""
    words = {clause.complement.english for clause in (first, second) if clause.complement}
    return any(words <= scale for scale in _SCALES)


def description(grammar: Grammar) -> Pair:
    """The new car is expensive, but it is not big."""
    noun = grammar.noun("clothes", "small", "device", "vehicle", "building", "animal", "text")
    phrase = grammar.described(noun, determiners="the the my this these", plain=1)
    clause = grammar.quality(phrase, noun.kind, negated=grammar.chance(0.2))
    if grammar.chance(0.5):
        return statement(clause)
    positive = not clause.negated
    second = grammar.quality(pronoun_for(phrase), noun.kind, negated=positive and grammar.chance(0.3))
    while _same_scale(clause, second):
        second = grammar.quality(pronoun_for(phrase), noun.kind, negated=positive and grammar.chance(0.3))
    return (
        finish(f"{clause.english()}, but {second.english()}"),
        finish(f"{clause.german()}, aber {second.german()}"),
    )


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


def relative_subject(grammar: Grammar) -> Pair:
    """The man who lives in Berlin is looking for the key."""
    noun = grammar.noun(*PEOPLE)
    person = grammar.described(noun, determiners="the", plain=0.85)
    pronoun_ = relative_pronoun(person, person=True)
    if grammar.chance(0.5):
        inner = grammar.choice((grammar.living, grammar.state))(pronoun_)
        case = "nom"
    elif grammar.chance(0.5):
        inner, case = replace(grammar.transitive(pronoun_), time=None, frequency=None), "nom"
    else:
        verb = _BY_NAME[grammar.choice(("know", "love", "help", "thank", "visit", "call", "invite"))]
        tense = "present" if verb.stative else "past"
        inner, case = Clause(grammar.person_name(), verb, tense), verb.case
    person = person.modified(*inner.relative(pronoun_, case))
    main = grammar.action(subject=person, negated=False)
    return statement(replace(main, time=None, fronted=False))


def relative_object(grammar: Grammar) -> Pair:
    """Anna is reading the book that Paul bought."""
    verb = _BY_NAME[grammar.choice(("buy", "find", "lose", "sell", "forget"))]
    thing = grammar.described(grammar.noun("clothes", "small"), determiners="the", plain=0.7)
    inner = Clause(grammar.person_name(), verb, grammar.choice(("past", "past", "perfect")))
    thing = thing.modified(*inner.relative(relative_pronoun(thing, person=False), "acc"))
    if grammar.chance(0.5):
        return statement(grammar.quality(thing, "small", tense=grammar.choice(("present", "past"))))
    outer = _BY_NAME[grammar.choice(("see", "need", "like", "look"))]
    tense = "progressive" if outer.base == "look" else "present"
    return statement(Clause(grammar.person_name(), outer, tense, ((thing, "acc"),)))


def intention(grammar: Grammar) -> Pair:
    """Anna is trying to call the doctor: the German infinitive with zu goes last."""
    verbs = (
        ("is trying to", "are trying to", "am trying to", "versucht", "versuchen", "versuche"),
        ("forgot to", "forgot to", "forgot to", "vergaß", "vergaßen", "vergaß"),
        ("promised to", "promised to", "promised to", "versprach", "versprachen", "versprach"),
        ("hopes to", "hope to", "hope to", "hofft", "hoffen", "hoffe"),
    )
    chosen, who = grammar.choice(verbs), grammar.subject()
    index = ("3sg", "pl", "1sg").index(who.number)
    clause = grammar.action(subject=pronoun("they"), negated=False)
    while clause.verb.stative or clause.verb.base in ("fall", "cry", "laugh"):
        clause = grammar.action(subject=pronoun("they"), negated=False)
    clause = replace(clause, tense="present", modal=None, time=None, frequency=None, fronted=False)
    english = clause.english().removeprefix("they ")
    rest = " ".join([*clause.middle(), clause.verb.zu_infinitive])
    return (
        finish(f"{who.subject} {chosen[index]} {english}"),
        finish(f"{who.german['nom']} {chosen[3 + index]}, {rest}"),
    )


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


RECIPES: tuple[tuple[int, Callable[[Grammar], Pair]], ...] = (
    (26, action), (6, yes_no_question), (3, place_question), (3, object_question), (3, subject_question),
    (2, quantity_question), (8, because), (5, condition), (6, reported), (3, past_when), (9, antecedent),
    (4, description), (2, personal_state), (3, comparison), (2, age), (3, price), (2, birth), (3, existence),
    (3, traffic), (4, furniture), (5, possession), (4, relative_subject), (4, relative_object),
    (4, intention), (2, weather), (1, clock_time),
)  # fmt: skip


def _repeats(english: str) -> bool:
    """Whether a name, noun or adjective comes twice, as in Anna calls Anna."""
    words = [word for word in english.replace("'s", "").strip(".?").split() if word in _CONTENT_WORDS]
    return len(words) > len(set(words))


def pairs(seed: int) -> Iterator[Pair]:
    """An endless stream of (English, German) sentences of 3 to 16 words; the seed decides it."""
    grammar = Grammar(seed)
    weights, recipes = zip(*RECIPES, strict=True)
    while True:
        english, german = grammar.random.choices(recipes, weights)[0](grammar)
        sized = all(3 <= len(text.split()) <= 16 for text in (english, german))
        if sized and not _repeats(english):
            yield english, german
