from dataclasses import replace

import pytest
from demo.grammar import (
    Clause,
    Phrase,
    both,
    finish,
    name,
    noun_phrase,
    pronoun,
    pronoun_for,
    relative_pronoun,
)
from demo.lexicon import ADJECTIVES, NOUNS
from demo.settings import Adverbial, number_words
from demo.verbs import DITRANSITIVE, INTRANSITIVE, MODALS, MOTION, TRANSITIVE


def noun(english: str):
    return next(n for nouns in NOUNS.values() for n in nouns if n.english == english)


def adjective(english: str):
    return next(a for group in ADJECTIVES.values() for a in group if a.english == english)


def verb(german: str):
    return next(v for v in TRANSITIVE + DITRANSITIVE + INTRANSITIVE + MOTION if v.infinitive == german)


# German, against what a grammar book says


@pytest.mark.parametrize(
    ("determiner", "english", "plural", "forms"),
    [
        ("the", "dog", False, "der alte Hund|den alten Hund|dem alten Hund"),
        ("a", "dog", False, "ein alter Hund|einen alten Hund|einem alten Hund"),
        ("my", "cat", False, "meine alte Katze|meine alte Katze|meiner alten Katze"),
        ("our", "horse", False, "unser altes Pferd|unser altes Pferd|unserem alten Pferd"),
        ("this", "horse", False, "dieses alte Pferd|dieses alte Pferd|diesem alten Pferd"),
        ("the", "child", True, "die alten Kinder|die alten Kinder|den alten Kindern"),
        ("", "bird", True, "alte Vögel|alte Vögel|alten Vögeln"),
        ("her", "boy", False, "ihr alter Junge|ihren alten Jungen|ihrem alten Jungen"),
        ("the", "student", False, "der alte Student|den alten Studenten|dem alten Studenten"),
    ],
)
def test_noun_phrases_are_declined(determiner, english, plural, forms):
    phrase = noun_phrase(noun(english), determiner, adjective("old"), plural=plural)
    assert "|".join(phrase.german[case] for case in ("nom", "acc", "dat")) == forms


def test_genitives_and_changing_stems():
    assert noun_phrase(noun("man"), "the").german["gen"] == "des Mannes"
    assert noun_phrase(noun("neighbour"), "my").german["gen"] == "meines Nachbarn"
    assert noun_phrase(noun("woman"), "her").german["gen"] == "ihrer Frau"
    assert noun_phrase(noun("coat"), "a", adjective("expensive")).german["acc"] == "einen teuren Mantel"
    assert noun_phrase(noun("milk"), "", adjective("cold")).german["acc"] == "kalte Milch"
    assert noun_phrase(noun("apple"), "a").subject == "an apple"
    assert noun_phrase(noun("apple"), "a", adjective("fresh")).subject == "a fresh apple"
    assert noun_phrase(noun("dog"), "a", negated=True).german["acc"] == "keinen Hund"


@pytest.mark.parametrize(
    ("infinitive", "forms"),
    [
        ("anrufen", "rufe ruft rufen rief riefen angerufen haben anzurufen"),
        ("aufstehen", "stehe steht stehen stand standen aufgestanden sein aufzustehen"),
        ("einladen", "lade lädt laden lud luden eingeladen haben einzuladen"),
        ("verkaufen", "verkaufe verkauft verkaufen verkaufte verkauften verkauft haben zu verkaufen"),
        ("helfen", "helfe hilft helfen half halfen geholfen haben zu helfen"),
        ("folgen", "folge folgt folgen folgte folgten gefolgt sein zu folgen"),
        ("reparieren", "repariere repariert reparieren reparierte reparierten repariert haben zu reparieren"),
        ("arbeiten", "arbeite arbeitet arbeiten arbeitete arbeiteten gearbeitet haben zu arbeiten"),
    ],
)
def test_verbs_are_conjugated(infinitive, forms):
    found = verb(infinitive)
    finite = [found.finite(past=False, number=n) for n in ("1sg", "3sg", "pl")]
    past = [found.finite(past=True, number=n) for n in ("3sg", "pl")]
    assert " ".join([*finite, *past, found.german_participle, found.auxiliary, found.zu_infinitive]) == forms


def test_english_verbs_are_conjugated():
    def english(german):
        return [getattr(verb(german), form) for form in ("third", "past", "participle", "gerund")]

    assert english("tragen") == ["carries", "carried", "carried", "carrying"]
    assert english("weinen") == ["cries", "cried", "cried", "crying"]
    assert english("waschen") == ["washes", "washed", "washed", "washing"]
    assert english("spielen") == ["plays", "played", "played", "playing"]
    assert english("backen") == ["bakes", "baked", "baked", "baking"]
    assert english("sehen") == ["sees", "saw", "seen", "seeing"]


def test_numbers_in_words():
    assert number_words(25) == ("twenty-five", "fünfundzwanzig")
    assert number_words(21) == ("twenty-one", "einundzwanzig")
    assert number_words(16) == ("sixteen", "sechzehn")
    assert number_words(30) == ("thirty", "dreißig")
    assert len({number_words(n)[1] for n in range(100)}) == 100


# Sentences, against translations by hand

ANNA = name("Anna", "she")
YESTERDAY = Adverbial("yesterday", "gestern")
CALL = Clause(ANNA, verb("anrufen"), "past", ((noun_phrase(noun("doctor"), "the"), "acc"),))
BUY = Clause(ANNA, verb("kaufen"), "past", ((noun_phrase(noun("coat"), "a"), "acc"),))
GIVE = Clause(
    pronoun("she"),
    verb("geben"),
    "present",
    ((pronoun("he"), "dat"), (noun_phrase(noun("book"), "the"), "acc")),
    frequency=Adverbial("often", "oft"),
)
GET_UP = Clause(pronoun("we"), verb("aufstehen"), "perfect")


@pytest.mark.parametrize(
    ("clause", "english", "german"),
    [
        (CALL, "Anna called the doctor.", "Anna rief den Arzt an."),
        (
            replace(CALL, time=YESTERDAY, fronted=True),
            "Yesterday Anna called the doctor.",
            "Gestern rief Anna den Arzt an.",
        ),
        (
            replace(CALL, time=YESTERDAY, negated=True),
            "Anna did not call the doctor yesterday.",
            "Anna rief den Arzt gestern nicht an.",
        ),
        (replace(CALL, tense="perfect"), "Anna has called the doctor.", "Anna hat den Arzt angerufen."),
        (
            replace(CALL, tense="modal", modal=MODALS[0], negated=True),
            "Anna cannot call the doctor.",
            "Anna kann den Arzt nicht anrufen.",
        ),
        (
            replace(CALL, tense="modal", modal=MODALS[3], negated=True),
            "Anna does not want to call the doctor.",
            "Anna will den Arzt nicht anrufen.",
        ),
        (replace(CALL, tense="future"), "Anna will call the doctor.", "Anna wird den Arzt anrufen."),
        (GIVE, "She often gives him the book.", "Sie gibt ihm oft das Buch."),
        (GET_UP, "We have got up.", "Wir sind aufgestanden."),
        (
            Clause(pronoun("I"), verb("helfen"), "progressive", ((pronoun("they"), "dat"),)),
            "I am helping them.",
            "Ich helfe ihnen.",
        ),
        (
            Clause(pronoun("they"), verb("abholen"), "past", ((pronoun("she"), "acc"),)),
            "They picked her up.",
            "Sie holten sie ab.",
        ),
        (
            Clause(both(ANNA, name("Paul", "he")), verb("suchen"), "past", ((pronoun("he"), "acc"),)),
            "Anna and Paul looked for him.",
            "Anna und Paul suchten ihn.",
        ),
    ],
)
def test_statements(clause, english, german):
    assert finish(clause.english()) == english
    assert finish(clause.german()) == german


def test_subordinate_clauses_end_in_the_verb():
    assert CALL.german_final() == "Anna den Arzt anrief"
    assert replace(CALL, tense="perfect").german_final() == "Anna den Arzt angerufen hat"
    assert replace(CALL, tense="modal", modal=MODALS[1]).german_final() == "Anna den Arzt anrufen muss"
    assert GET_UP.german_final() == "wir aufgestanden sind"


def test_questions():
    assert finish(CALL.english_question(), "?") == "Did Anna call the doctor?"
    assert finish(CALL.german_inverted(), "?") == "Rief Anna den Arzt an?"
    future = replace(CALL, tense="future", objects=())
    assert finish(future.english_question("whom"), "?") == "Whom will Anna call?"
    assert finish(future.german_inverted("wen"), "?") == "Wen wird Anna anrufen?"
    who = replace(CALL, tense="perfect", subject=Phrase("who", "whom", {"nom": "wer"}))
    assert finish(who.english(), "?") == "Who has called the doctor?"
    assert finish(who.german(), "?") == "Wer hat den Arzt angerufen?"


def test_pronouns_take_the_gender_of_their_noun():
    objects = [noun_phrase(noun(word), "the") for word in ("coat", "bag", "dress")]
    assert [pronoun_for(phrase).german["acc"] for phrase in objects] == ["ihn", "sie", "es"]
    assert [pronoun_for(phrase).subject for phrase in objects] == ["it", "it", "it"]
    assert pronoun_for(noun_phrase(noun("coat"), "the", plural=True)).object == "them"


def test_an_indefinite_object_is_negated_by_kein():
    coat = noun_phrase(noun("coat"), "a", negated=True)
    clause = replace(BUY, objects=((coat, "acc"),), negated=True)
    assert finish(clause.english()) == "Anna did not buy a coat."
    assert finish(clause.german()) == "Anna kaufte keinen Mantel."


def test_relative_clauses():
    woman = noun_phrase(noun("woman"), "the")
    gap = relative_pronoun(woman, person=True)
    helped = Clause(name("Paul", "he"), verb("helfen"), "past")
    phrase = woman.modified(*helped.relative(gap, "dat"))
    clause = Clause(phrase, verb("tanzen"), "progressive")
    assert finish(clause.english()) == "The woman whom Paul helped is dancing."
    assert finish(clause.german()) == "Die Frau, der Paul half, tanzt."
    coat = noun_phrase(noun("coat"), "the")
    bought = replace(BUY, objects=()).relative(relative_pronoun(coat, person=False), "acc")
    seen = Clause(pronoun("we"), verb("sehen"), "present", ((coat.modified(*bought), "acc"),))
    assert finish(seen.english()) == "We see the coat that Anna bought."
    assert finish(seen.german()) == "Wir sehen den Mantel, den Anna kaufte."
    people = relative_pronoun(noun_phrase(noun("woman"), "the", plural=True), person=True)
    assert people.german["dat"] == "denen"
