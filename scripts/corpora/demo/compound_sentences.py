"""Sentences of several clauses: subordinate, relative and coordinated ones, as English-German pairs.

Each function draws one sentence from the grammar; its docstring shows an example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from demo.clauses import Grammar
from demo.grammar import Clause, pronoun, pronoun_for, relative_pronoun
from demo.lexicon import PEOPLE
from demo.simple_sentences import VERB_BY_BASE, Pair, sentence, statement
from demo.verbs import TRANSITIVE

_SCALES = (
    {"big", "small"}, {"old", "new"}, {"old", "young"}, {"expensive", "cheap"}, {"long", "short"},
    {"red", "blue", "green", "black", "white", "brown"},
)  # fmt: skip


def _draw(draw: Callable[[], Clause], accept: Callable[[Clause], bool]) -> Clause:
    """Draws clauses until one is accepted, and returns it."""
    return next(filter(accept, iter(draw, None)))


def _untimed(clause: Clause, tense: str) -> Clause:
    return replace(clause, tense=tense, modal=None, frequency=None, time=None, fronted=False)


def _but(first: Clause, second: Clause) -> Pair:
    return sentence(f"{first.english()}, but {second.english()}", f"{first.german()}, aber {second.german()}")


def because(grammar: Grammar) -> Pair:
    """Anna stays at home because she is ill."""
    subject = grammar.person()
    known = subject.refers and grammar.chance(0.75)
    after = pronoun(subject.refers if known else grammar.choice(("he", "she", "they", "I", "we")))
    main = grammar.action(subject=subject, negated=grammar.chance(0.15))
    cause = grammar.reason(after, main)
    words = grammar.choice((("because", "weil"), ("because", "weil"), ("although", "obwohl")))
    return sentence(
        f"{main.english()} {words[0]} {cause.english()}", f"{main.german()}, {words[1]} {cause.german_final()}"
    )


def condition(grammar: Grammar) -> Pair:
    """If it rains, Anna will stay at home."""
    who = grammar.subject()
    if grammar.chance(0.4):
        verb, german = grammar.choice((("rains", "regnet"), ("snows", "schneit")))
        english_if, german_if = f"it {verb}", f"es {german}"
    else:
        clause = replace(grammar.state(grammar.person(), negated=grammar.chance(0.2)), tense="present")
        english_if, german_if = clause.english(), clause.german_final()
    main = _draw(
        lambda: grammar.action(subject=who, negated=grammar.chance(0.2)), lambda clause: not clause.verb.stative
    )
    main = _untimed(main, "future")
    if grammar.chance(0.5):
        return sentence(f"if {english_if}, {main.english()}", f"wenn {german_if}, {main.german_inverted()}")
    return sentence(f"{main.english()} if {english_if}", f"{main.german()}, wenn {german_if}")


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
    return sentence(
        f"{who.subject} {third if who.number == '3sg' else base} {said.english()}",
        f"{who.german['nom']} {finite}, dass {said.german_final()}",
    )


def past_when(grammar: Grammar) -> Pair:
    """When Anna arrived, the children were sleeping: a single event in the past, German als."""
    events = (("arrived", "ankam", "ankamen"), ("came home", "nach Hause kam", "nach Hause kamen"))
    event = grammar.choice(events)
    who = grammar.person()
    german_event = event[2] if who.number == "pl" else event[1]
    main = _draw(
        lambda: grammar.action(negated=False),
        lambda clause: clause.verb.past != clause.verb.base and not clause.verb.stative,
    )
    main = _untimed(main, "past")
    return sentence(
        f"when {who.subject} {event[0]}, {main.english()}",
        f"als {who.german['nom']} {german_event}, {main.german_inverted()}",
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
        words = ("although", "obwohl") if grammar.chance(0.3) else ("because", "weil")
        return sentence(
            f"{clause.english()} {words[0]} {tail.english()}", f"{clause.german()}, {words[1]} {tail.german_final()}"
        )
    other = VERB_BY_BASE[grammar.choice(("need", "see", "love", "like"))]
    tail = Clause(grammar.person(), other, "present", ((it, "acc"),), negated=grammar.chance(0.4))
    return _but(clause, tail)


def _same_scale(first: Clause, second: Clause) -> bool:
    """Whether two predicates are on the same scale: big and small, red and blue."""
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
    second = _draw(
        lambda: grammar.quality(pronoun_for(phrase), noun.kind, negated=positive and grammar.chance(0.3)),
        lambda second: not _same_scale(clause, second),
    )
    return _but(clause, second)


def relative_subject(grammar: Grammar) -> Pair:
    """The man who lives in Berlin is looking for the key."""
    noun = grammar.noun(*PEOPLE)
    person = grammar.described(noun, determiners="the", plain=0.85)
    pronoun_ = relative_pronoun(person, person=True)
    if grammar.chance(0.5):
        inner, case = grammar.choice((grammar.living, grammar.state))(pronoun_), "nom"
    elif grammar.chance(0.5):
        inner, case = replace(grammar.transitive(pronoun_), time=None, frequency=None), "nom"
    else:
        verb = VERB_BY_BASE[grammar.choice(("know", "love", "help", "thank", "visit", "call", "invite"))]
        tense = "present" if verb.stative else "past"
        inner, case = Clause(grammar.person_name(), verb, tense), verb.case
    person = person.modified(*inner.relative(pronoun_, case))
    main = grammar.action(subject=person, negated=False)
    return statement(replace(main, time=None, fronted=False))


def relative_object(grammar: Grammar) -> Pair:
    """Anna is reading the book that Paul bought."""
    verb = VERB_BY_BASE[grammar.choice(("buy", "find", "lose", "sell", "forget"))]
    thing = grammar.described(grammar.noun("clothes", "small"), determiners="the", plain=0.7)
    inner = Clause(grammar.person_name(), verb, grammar.choice(("past", "past", "perfect")))
    thing = thing.modified(*inner.relative(relative_pronoun(thing, person=False), "acc"))
    if grammar.chance(0.5):
        return statement(grammar.quality(thing, "small", tense=grammar.choice(("present", "past"))))
    outer = VERB_BY_BASE[grammar.choice(("see", "need", "like", "look"))]
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
    clause = _draw(
        lambda: grammar.action(subject=pronoun("they"), negated=False),
        lambda clause: not clause.verb.stative and clause.verb.base not in ("fall", "cry", "laugh"),
    )
    clause = _untimed(clause, "present")
    english = clause.english().removeprefix("they ")
    rest = " ".join([*clause.middle(), clause.verb.zu_infinitive])
    return sentence(f"{who.subject} {chosen[index]} {english}", f"{who.german['nom']} {chosen[3 + index]}, {rest}")
