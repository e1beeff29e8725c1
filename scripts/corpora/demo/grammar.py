"""Noun phrases and clauses with their English and German surface forms.

A clause represents one meaning. English is generated with do-support and subject-verb-object order; German with the
finite verb second, first (questions) or last (subordinate clauses), separable prefixes, and the middle field ordered
as pronouns, time, noun objects, company, place. Each clause has exactly one German rendering.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from demo.lexicon import Adjective, Noun
from demo.settings import Adverbial
from demo.verbs import BE, Modal, Verb

_DEFINITE = {
    "nom": {"m": "der", "f": "die", "n": "das", "p": "die"},
    "acc": {"m": "den", "f": "die", "n": "das", "p": "die"},
    "dat": {"m": "dem", "f": "der", "n": "dem", "p": "den"},
    "gen": {"m": "des", "f": "der", "n": "des", "p": "der"},
}
_STRONG = {
    "nom": {"m": "er", "f": "e", "n": "es", "p": "e"},
    "acc": {"m": "en", "f": "e", "n": "es", "p": "e"},
    "dat": {"m": "em", "f": "er", "n": "em", "p": "en"},
    "gen": {"m": "en", "f": "er", "n": "en", "p": "er"},
}
_POSSESSIVES = {"my": "mein", "his": "sein", "her": "ihr", "our": "unser", "their": "ihr"}
_EIN_WORDS = {"a": "ein", "no": "kein", **_POSSESSIVES}
_AUXILIARIES = {
    "haben": {"1sg": "habe", "3sg": "hat", "pl": "haben"},
    "sein": {"1sg": "bin", "3sg": "ist", "pl": "sind"},
    "werden": {"1sg": "werde", "3sg": "wird", "pl": "werden"},
}
_PRONOUNS = {
    "I": ("I", "me", "ich", "mich", "mir", "1sg"),
    "we": ("we", "us", "wir", "uns", "uns", "pl"),
    "he": ("he", "him", "er", "ihn", "ihm", "3sg"),
    "she": ("she", "her", "sie", "sie", "ihr", "3sg"),
    "they": ("they", "them", "sie", "sie", "ihnen", "pl"),
}
_IT = {"m": ("er", "ihn", "ihm"), "f": ("sie", "sie", "ihr"), "n": ("es", "es", "ihm")}
POSSESSIVE_WORDS = tuple(_POSSESSIVES)


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: English as subject and as object, German by case.

    `number` is the verb's ("1sg", "3sg", "pl"); `gender` the German one, "p" in the plural.
    """

    subject: str
    object: str
    german: dict[str, str] = field(compare=False)
    number: str = "3sg"
    gender: str = "m"
    pronoun: bool = False
    definite: bool = True
    refers: str = ""  # he, she or they for a person of known sex or several

    def modified(self, english: str, german: str) -> Phrase:
        """Returns the phrase followed by a modifier, such as a genitive or a relative clause."""
        forms = {case: f"{form} {german}" for case, form in self.german.items()}
        return replace(self, subject=f"{self.subject} {english}", object=f"{self.object} {english}", german=forms)


def name(text: str, refers: str) -> Phrase:
    """Builds the phrase of a first name, the same in all cases; `refers` is its pronoun, he or she."""
    return Phrase(text, text, dict.fromkeys(("nom", "acc", "dat"), text), refers=refers)


def pronoun(word: str) -> Phrase:
    """Builds a personal pronoun other than it: I, we, he, she, they."""
    subject, obj, nom, acc, dat, number = _PRONOUNS[word]
    return Phrase(subject, obj, {"nom": nom, "acc": acc, "dat": dat}, number, pronoun=True)


def pronoun_for(phrase: Phrase) -> Phrase:
    """Returns it or they, agreeing with the gender and number of a thing mentioned before."""
    if phrase.gender == "p":
        return pronoun("they")
    forms = dict(zip(("nom", "acc", "dat"), _IT[phrase.gender], strict=True))
    return Phrase("it", "it", forms, gender=phrase.gender, pronoun=True)


def relative_pronoun(phrase: Phrase, *, person: bool) -> Phrase:
    """Returns who, whom or that, with the German relative pronoun of the phrase's gender and number."""
    forms = {case: _DEFINITE[case][phrase.gender] for case in ("nom", "acc", "dat")}
    if phrase.gender == "p":
        forms["dat"] = "denen"
    words = ("who", "whom") if person else ("that", "that")
    return Phrase(*words, forms, phrase.number, phrase.gender, pronoun=True)


def _determiner(word: str, case: str, gender: str) -> str:
    if word == "the":
        return _DEFINITE[case][gender]
    stem = "dies" if word in ("this", "these") else _EIN_WORDS[word]
    if word in _EIN_WORDS and ((case == "nom" and gender in "mn") or (case == "acc" and gender == "n")):
        return stem
    return stem + ("es" if case == "gen" and gender in "mn" else _STRONG[case][gender])


def _adjective_ending(word: str, case: str, gender: str) -> str:
    if word and (gender == "p" or case in ("dat", "gen") or (case == "acc" and gender == "m")):
        return "en"
    return "e" if word in ("the", "this") else _STRONG[case][gender]


def noun_phrase(
    noun: Noun, determiner: str, adjective: Adjective | None = None, *, plural: bool = False,
    quantity: tuple[str, str] = ("", ""), negated: bool = False,
) -> Phrase:  # fmt: skip
    """Builds a noun phrase with determiner, adjective and number.

    `determiner` is the English word: the, this, these, a, no or a possessive, "" for none. `quantity` is a number in
    both languages. `negated` turns an indefinite phrase into the object of a negated verb: English a or nothing,
    German kein.
    """
    gender = "p" if plural else noun.gender
    german_determiner = "no" if negated and determiner in ("a", "") else determiner
    noun_form = noun.english_plural if plural else noun.english
    english = _join([quantity[0], adjective.english if adjective else "", noun_form])
    if determiner:
        article = "an" if determiner == "a" and english[0] in "aeiou" else determiner
        english = f"{article} {english}"
    forms = {}
    for case in ("nom", "acc", "dat", "gen"):
        article = _determiner(german_determiner, case, gender) if german_determiner else ""
        ending = _adjective_ending(german_determiner, case, gender)
        described = adjective.stem + ending if adjective else ""
        forms[case] = _join([article, quantity[1], described, noun.decline(case, plural=plural)])
    definite = determiner not in ("a", "", "no")
    refers = "they" if plural else {"man": "he", "woman": "she"}.get(noun.kind, "")
    number = "pl" if plural else "3sg"
    return Phrase(english, english, forms, number, gender, definite=definite, refers=refers)


def both(first: Phrase, second: Phrase) -> Phrase:
    """Joins two phrases by and: a plural subject or object."""
    forms = {case: f"{first.german[case]} und {second.german[case]}" for case in ("nom", "acc", "dat")}
    return Phrase(
        f"{first.subject} and {second.subject}",
        f"{first.object} and {second.object}",
        forms,
        "pl",
        "p",
        refers="they",
    )


@dataclass(frozen=True)
class Clause:
    """One predication. `tense` is present, progressive, past, perfect, future or modal (with `modal` set)."""

    subject: Phrase
    verb: Verb
    tense: str
    objects: tuple[tuple[Phrase, str], ...] = ()  # with their German cases
    modal: Modal | None = None
    time: Adverbial | None = None
    fronted: bool = False  # whether the time comes first
    frequency: Adverbial | None = None
    company: Adverbial | None = None  # "with my friend"
    place: Adverbial | None = None
    complement: Adverbial | Adjective | None = None  # predicate of be, cost
    negated: bool = False

    # English

    def _english_verb(self, *, support: bool) -> tuple[str, str]:
        """Returns the auxiliary and the form of the verb after it; either may be empty.

        With `support`, for a negation or question, there is an auxiliary: if need be do, does or did.
        """
        verb, number = self.verb, self.subject.number
        third, past = number == "3sg", self.tense == "past"
        is_ = {"1sg": "am", "3sg": "is", "pl": "are"}[number]
        base, third_person = verb.base, verb.third
        if self.modal:
            link = f"{self.modal.link} {base}".strip()
            if self.modal.auxiliary:
                return self.modal.english, link
            base, third_person = f"{self.modal.english} {link}", f"{self.modal.third} {link}"
        auxiliary, main = {
            "progressive": (is_, verb.gerund),
            "perfect": ("has" if third else "have", verb.participle),
            "future": ("will", base),
            "past": ("", verb.past),
        }.get(self.tense, ("", third_person if third else base))
        if verb is BE and not auxiliary:
            was = "were" if number == "pl" else "was"
            return (was if past else is_), ""
        if auxiliary or not support:
            return auxiliary, main
        return ("did" if past else "does" if third else "do"), base

    def _english_rest(self, main: str) -> str:
        parts = [self.frequency.english if self.frequency else "", main]
        objects = [phrase.object for phrase, _ in self.objects]
        if self.verb.particle and objects and self.objects[0][0].pronoun:
            parts.append(objects.pop(0))
        parts += [self.verb.particle, self.verb.tail, *objects]
        adverbials = (self.complement, self.place, self.company, None if self.fronted else self.time)
        return _join(parts + [a.english for a in adverbials if a])

    def english(self) -> str:
        """Returns the statement, without capital and full stop."""
        auxiliary, main = self._english_verb(support=self.negated)
        negation = "not" if self.negated else ""
        if auxiliary == "can" and negation:
            auxiliary, negation = "cannot", ""
        front = self.time.english if self.time and self.fronted else ""
        return _join([front, self.subject.subject, auxiliary, negation, self._english_rest(main)])

    def english_question(self, word: str = "") -> str:
        """Returns the question, optionally with a question word that is not its subject."""
        auxiliary, main = self._english_verb(support=True)
        return _join([word, auxiliary, self.subject.subject, self._english_rest(main)])

    # German

    def _german_verb(self) -> tuple[str, str, str]:
        """Returns the finite verb, the end of a main clause, and the end of a verb-final clause."""
        verb, number = self.verb, self.subject.number
        if self.modal:
            finite = self.modal.plural if number == "pl" else self.modal.singular
            last = verb.infinitive
        elif self.tense == "future":
            finite, last = _AUXILIARIES["werden"][number], verb.infinitive
        elif self.tense == "perfect":
            finite, last = _AUXILIARIES[verb.auxiliary][number], verb.german_participle
        else:
            finite = verb.finite(past=self.tense == "past", number=number)
            return finite, verb.prefix, verb.prefix + finite
        return finite, last, f"{last} {finite}"

    def middle(self) -> list[str]:
        """Returns the German middle field without the subject."""
        pronouns = [p.german[case] for p, case in self.objects if p.pronoun]
        nouns = [p.german[case] for p, case in self.objects if not p.pronoun]
        definite = all(p.definite for p, _ in self.objects)
        times = [a.german for a in (self.frequency, None if self.fronted else self.time) if a]
        # schon and nicht follow a definite object
        late = definite and (self.negated or (self.frequency is not None and self.frequency.german == "schon"))
        parts = [*pronouns, *nouns, *times] if late else [*pronouns, *times, *nouns]
        # with an indefinite object, kein already negates the clause
        if self.negated and definite:
            parts.append("nicht")
        return parts + [a.german for a in (self.complement, self.company, self.place) if a]

    def german(self) -> str:
        """Returns the statement: finite verb second."""
        if self.time and self.fronted:
            return self.german_inverted(self.time.german)
        finite, last, _ = self._german_verb()
        return _join([self.subject.german["nom"], finite, *self.middle(), last])

    def german_inverted(self, first: str = "") -> str:
        """Returns the clause with its finite verb before the subject.

        This is a question, with or without a question word `first`, or a statement after another first constituent.
        """
        finite, last, _ = self._german_verb()
        return _join([first, finite, self.subject.german["nom"], *self.middle(), last])

    def german_final(self) -> str:
        """Returns the subordinate clause after its conjunction: finite verb last."""
        return _join([self.subject.german["nom"], *self.middle(), self._german_verb()[2]])

    def relative(self, gap: Phrase, case: str) -> tuple[str, str]:
        """Returns, in both languages, a relative clause in which `gap` is the subject (nom) or an added object."""
        if case == "nom":
            clause = replace(self, subject=gap)
            return clause.english(), f", {clause.german_final()},"
        finite, english = self.german_final(), self.english()
        return f"{gap.object} {english}", f", {gap.german[case]} {finite},"


def _join(parts: list[str]) -> str:
    return " ".join(part for part in parts if part)


def finish(text: str, mark: str = ".") -> str:
    """Turns a text into a sentence: capital letter, cleaned-up punctuation, closing mark."""
    text = (text + mark).replace(" ,", ",").replace(",,", ",").replace("," + mark, mark)
    return text[0].upper() + text[1:]
