"""Random phrases and clauses of the demo grammar, well-formed in both languages."""

from __future__ import annotations

import random
from dataclasses import replace

from demo.grammar import (
    POSSESSIVE_WORDS,
    Clause,
    Phrase,
    both,
    name,
    noun_phrase,
    pronoun,
)
from demo.lexicon import NOUNS, PEOPLE, RELATED, UNIQUE, Noun, adjectives
from demo.settings import CITIES, DAYS, FEMALE, MALE, MONTHS, PLACES, Adverbial, number_words
from demo.verbs import (
    BE,
    DITRANSITIVE,
    INTRANSITIVE,
    LIVE,
    MODALS,
    MOTION,
    RAIN,
    SNOW,
    TRANSITIVE,
    Verb,
)


def _adverbials(table: str) -> list[Adverbial]:
    return [Adverbial(*entry.split("|")) for entry in table.split(";")]


_PAST = _adverbials("yesterday|gestern;last week|letzte Woche;last year|letztes Jahr;this morning|heute Morgen")
_FUTURE = _adverbials("tomorrow|morgen;next week|nächste Woche;next year|nächstes Jahr;tonight|heute Abend")
_NOW = _adverbials("now|jetzt;today|heute")
_HABIT = _adverbials(
    "every day|jeden Tag;every morning|jeden Morgen;in the evening|am Abend;in summer|im Sommer;"
    "on Sundays|sonntags;in winter|im Winter"
)
# Verbs that go with last year and next year
_LASTING = ("buy", "sell", "build", "visit", "travel", "write", "lose", "give", "stay", "work")
_FREQUENCY = _adverbials("often|oft;always|immer;never|nie;sometimes|manchmal;rarely|selten")
_ALREADY = Adverbial("already", "schon")
_TENSES = ("progressive", "progressive", "present", "past", "past", "perfect", "future", "modal")
_QUANTITIES = [number_words(n) for n in range(2, 13)]


class Grammar:
    """Draws phrases, clauses and their adverbials from one random generator."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.choice = self.random.choice

    def chance(self, probability: float) -> bool:
        """Returns True with the given probability."""
        return self.random.random() < probability

    # Phrases

    def person_name(self) -> Phrase:
        """Draws a first name."""
        text = self.choice(MALE + FEMALE)
        return name(text, "he" if text in MALE else "she")

    def noun(self, *kinds: str) -> Noun:
        """Draws a noun of the given kinds, uniformly."""
        return self.choice([noun for kind in kinds for noun in NOUNS[kind]])

    def described(
        self, noun: Noun, *, determiners: str = "the a my", negated: bool = False, plain: float = 0.6
    ) -> Phrase:
        """Draws a noun phrase with determiner and number, without adjective with probability `plain`."""
        adjective = None if self.chance(plain) else self.choice(adjectives(noun.kind))
        if noun.kind == "drink":
            return noun_phrase(noun, self.choice(("", "", "the")), adjective, negated=negated)
        determiner = self.choice(determiners.split())
        if determiner == "my":
            determiner = self.choice(POSSESSIVE_WORDS)
        single = determiner in ("a", "this") or noun.english in UNIQUE
        plural = determiner in ("these", "") or (not single and self.chance(0.2))
        if negated and determiner == "a" and self.chance(0.3):
            determiner, plural = "", True
        return noun_phrase(noun, determiner, adjective, plural=plural, negated=negated)

    def person(self, *, names: float = 0.45) -> Phrase:
        """Draws a person: a name with probability `names`, or a described person."""
        return self.person_name() if self.chance(names) else self.someone(self.noun(*PEOPLE))

    def someone(self, noun: Noun) -> Phrase:
        """Draws the description of a person: my uncle, the policeman."""
        return self.described(noun, determiners="the my my my this" if noun.english in RELATED else "the the this")

    def subject(self) -> Phrase:
        """Draws a subject that can act: a name, a person or a pronoun; occasionally two names."""
        if self.chance(0.25):
            return pronoun(self.choice(("I", "we", "he", "she", "they")))
        if self.chance(0.06):
            first, second = self.random.sample(MALE + FEMALE, 2)
            return both(name(first, ""), name(second, ""))
        return self.person()

    def object(self, verb: Verb, *, negated: bool = False) -> Phrase:
        """Draws an object that the verb can govern."""
        noun = self.noun(*verb.objects)
        if noun.kind in PEOPLE:
            if self.chance(0.2):
                return pronoun(self.choice(("he", "she", "they")))
            if self.chance(0.25):
                return self.person_name()
            return self.someone(noun)
        if not negated and noun.kind not in ("drink", "building", "opening") and self.chance(0.12):
            return noun_phrase(noun, "", plural=True, quantity=self.choice(_QUANTITIES))
        determiners = "the my" if noun.kind in ("opening", "device") else "the the a a my this"
        return self.described(noun, determiners=determiners, negated=negated)

    # Adverbials

    def clock(self) -> Adverbial:
        """Draws a time of day: on the hour, half past, a quarter past, or in digits."""
        hour = self.random.randint(1, 12)
        english, german = number_words(hour)
        style = self.random.random()
        if style < 0.4:
            return Adverbial(f"at {english} o'clock", f"um {'ein' if hour == 1 else german} Uhr")
        if style < 0.6:
            return Adverbial(f"at half past {english}", f"um halb {number_words(hour % 12 + 1)[1]}")
        if style < 0.75:
            return Adverbial(f"at a quarter past {english}", f"um Viertel nach {german}")
        digits = f"{self.random.randint(5, 23)}:{self.random.randrange(0, 60, 5):02d}"
        return Adverbial(f"at {digits}", f"um {digits} Uhr")

    def day(self) -> Adverbial:
        """Draws a day of the week."""
        english, german = self.choice(DAYS)
        return Adverbial(f"on {english}", f"am {german}")

    def date(self, *, year: bool) -> Adverbial:
        """Draws a date in digits, such as on 12 May 1987."""
        day, (english, german) = self.random.randint(1, 28), self.choice(MONTHS)
        tail = f" {self.random.randint(1940, 2024)}" if year else ""
        return Adverbial(f"on {day} {english}{tail}", f"am {day}. {german}{tail}")

    def company(self) -> Adverbial:
        """Draws a companion: with someone."""
        other = self.person(names=0.3)
        return Adverbial(f"with {other.object}", f"mit {other.german['dat']}")

    # Clauses

    def tensed(self, clause: Clause, tenses: tuple[str, ...] = _TENSES) -> Clause:
        """Adds a tense, and a time or frequency that fits the tense."""
        verb, tense, modal = clause.verb, self.choice(tenses), None
        if verb.stative and tense in ("progressive", "modal", "future", "perfect"):
            tense = "present"
        if tense == "past" and verb.past == verb.base and clause.subject.number != "3sg":
            tense = "perfect"  # "they read" could be present or past
        if tense == "progressive" and verb.punctual:
            tense = "past"
        if tense == "modal":
            modal = self.choice([m for m in MODALS if not clause.negated or m.may_be_negated])
        return self.timed(replace(clause, tense=tense, modal=modal))

    def timed(self, clause: Clause) -> Clause:
        """Adds a time or frequency that fits the tense."""
        tense, verb = clause.tense, clause.verb
        if tense == "present" and not verb.stative:
            if clause.negated or self.chance(0.4):
                return replace(clause, time=self.choice(_HABIT), fronted=self.chance(0.2))
            return replace(clause, frequency=self.choice(_FREQUENCY))
        if tense == "perfect":
            definite = all(phrase.definite for phrase, _ in clause.objects)
            already = definite and not clause.negated and self.chance(0.5)
            return replace(clause, frequency=_ALREADY) if already else clause
        if verb.stative or self.chance(0.35):
            return clause
        times = {"progressive": _NOW, "past": _PAST, "future": _FUTURE, "modal": [*_FUTURE, _NOW[1]]}[tense]
        if verb.base not in _LASTING:
            times = [time for time in times if not time.english.endswith("year")]
        time = self.choice(times)
        if tense != "progressive" and self.chance(0.3):
            time = self.day() if clause.negated or self.chance(0.6) else self.date(year=False)
        return replace(clause, time=time, fronted=self.chance(0.35))

    def transitive(self, subject: Phrase, *, negated: bool = False) -> Clause:
        """Someone does something to someone or something."""
        verb = self.choice(TRANSITIVE)
        thing = self.object(verb, negated=negated)
        return self.tensed(Clause(subject, verb, "present", ((thing, verb.case),), negated=negated))

    def ditransitive(self, subject: Phrase) -> Clause:
        """Someone gives someone something; in English the receiver comes first."""
        verb = self.choice(DITRANSITIVE)
        receiver = pronoun(self.choice(("he", "she", "they"))) if self.chance(0.3) else self.person(names=0.3)
        thing = self.described(self.noun(*verb.objects), determiners="the a a my")
        return self.tensed(Clause(subject, verb, "present", ((receiver, "dat"), (thing, "acc"))))

    def intransitive(self, subject: Phrase, *, negated: bool = False) -> Clause:
        """Someone does something somewhere, or at some time."""
        verb = self.choice(INTRANSITIVE)
        clause = Clause(subject, verb, "present", negated=negated)
        if verb.objects == ("clock",):
            clause = self.tensed(clause, ("past", "past", "future", "modal", "perfect"))
            if clause.tense == "perfect" or negated:
                return replace(clause, time=None)
            return replace(clause, time=self.clock(), fronted=self.chance(0.2))
        clause = self.tensed(clause)
        if verb.objects == ("place_needed",) or (verb.objects == ("place",) and self.chance(0.6)):
            clause = replace(clause, place=self.choice(PLACES + CITIES[:4]).at)
        if verb.base in ("work", "dance", "sing", "play") and self.chance(0.3):
            clause = replace(clause, company=self.company())
        return clause

    def motion(self, subject: Phrase, *, negated: bool = False) -> Clause:
        """Someone goes somewhere."""
        verb = self.choice(MOTION)
        goals = [*(PLACES if "place" in verb.objects else []), *(CITIES if "city" in verb.objects else [])]
        clause = Clause(subject, verb, "present", place=self.choice(goals).to, negated=negated)
        if verb.base != "run" and self.chance(0.2):
            clause = replace(clause, company=self.company())
        return self.tensed(clause)

    def living(self, subject: Phrase) -> Clause:
        """Someone lives in a city."""
        return Clause(subject, LIVE, self.choice(("present", "present", "past")), place=self.choice(CITIES).at)

    def state(self, subject: Phrase, *, negated: bool = False) -> Clause:
        """Someone is tired."""
        clause = self.quality(subject, "state", negated=negated)
        return replace(clause, tense=self.choice(("present", "past")))

    def quality(self, phrase: Phrase, kind: str, *, tense: str = "present", negated: bool = False) -> Clause:
        """Something is old."""
        return Clause(phrase, BE, tense, complement=self.choice(adjectives(kind)), negated=negated)

    def weather(self) -> Clause:
        """It rains or snows."""
        tense = self.choice(("progressive", "past", "future"))
        it = Phrase("it", "it", dict.fromkeys(("nom", "acc", "dat"), "es"), gender="n", pronoun=True)
        return self.timed(Clause(it, self.choice((RAIN, SNOW)), tense))

    def action(self, *, subject: Phrase | None = None, negated: bool | None = None) -> Clause:
        """Draws any clause with a person as its subject."""
        subject = subject or self.subject()
        negated = self.chance(0.2) if negated is None else negated
        pick = self.random.random()
        if pick < 0.55:
            return self.transitive(subject, negated=negated)
        if pick < 0.68 and not negated:
            return self.ditransitive(subject)
        if pick < 0.85:
            return self.intransitive(subject, negated=negated)
        return self.motion(subject, negated=negated)

    def reason(self, subject: Phrase, main: Clause) -> Clause:
        """Draws a clause to follow because: without a fronted time, or a second one."""
        if self.chance(0.5):
            tense = "past" if main.tense == "past" else "present"
            return replace(self.state(subject, negated=self.chance(0.2)), tense=tense)
        clause = self.weather() if self.chance(0.2) else self.action(subject=subject)
        return replace(clause, fronted=False, time=None if main.time else clause.time)
