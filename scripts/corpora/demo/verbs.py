"""Verbs and modal verbs of the demo grammar, with their inflection in both languages."""

from __future__ import annotations

from dataclasses import dataclass

from demo.lexicon import BUYABLE, EDIBLE, PEOPLE, THINGS, english_s


@dataclass(frozen=True)
class Verb:
    """A verb in both languages, with the case and kinds of its objects."""

    base: str
    third: str
    past: str
    participle: str
    gerund: str
    particle: str  # "up" in "picks it up": follows a pronoun object
    tail: str  # "for" in "looks for": never moves
    prefix: str  # separable German prefix
    german: str  # infinitive without the prefix
    german_first: str
    german_third: str
    german_past: str
    german_participle: str
    auxiliary: str
    case: str
    objects: tuple[str, ...]
    stative: bool
    punctual: bool  # no progressive

    @property
    def infinitive(self) -> str:
        """The German infinitive, with prefix."""
        return self.prefix + self.german

    @property
    def zu_infinitive(self) -> str:
        """The infinitive with zu: inserted into a separable verb, before any other."""
        return f"{self.prefix}zu{self.german}" if self.prefix else f"zu {self.german}"

    def finite(self, *, past: bool, number: str) -> str:
        """Returns the German finite form for a number ("1sg", "3sg" or "pl"), without the prefix."""
        if past:
            plural = "n" if self.german_past.endswith("e") else "en"
            return self.german_past + (plural if number == "pl" else "")
        plural = "sind" if self.german == "sein" else self.german
        return {"1sg": self.german_first, "3sg": self.german_third, "pl": plural}[number]


@dataclass(frozen=True)
class Modal:
    """A modal verb: an English auxiliary, or ("want", "to") that needs do-support."""

    english: str
    third: str
    auxiliary: bool
    link: str
    plural: str  # German
    singular: str
    may_be_negated: bool = True


_GERUNDS = {
    "get": "getting", "swim": "swimming", "run": "running", "put": "putting", "forget": "forgetting",
    "travel": "travelling", "lie": "lying",
}  # fmt: skip
_KIND_SETS = {"people": PEOPLE, "thing": THINGS, "edible": EDIBLE, "buyable": BUYABLE}


def _verb(line: str) -> Verb:
    english, german, kinds, *flags = line.split("|")
    name, *past = english.split()
    base, _, tail = name.partition("~")
    base, _, particle = base.partition("_")
    silent = base.endswith("e") and base not in ("be", "see")
    third = {"have": "has", "be": "is", "go": "goes"}.get(base, english_s(base))
    regular = third[:-1] + "d" if third.endswith("ies") or silent else base + "ed"
    prefix, _, rest = german.rpartition("+")
    infinitive, *forms = rest.split()
    stem = infinitive.removesuffix("en")
    present, preterite, participle = forms[:3] or (stem + "t", stem + "te", f"ge{stem}t")
    return Verb(
        base=base,
        third=third,
        past=past[0] if past else regular,
        participle=past[1] if past else regular,
        gerund=_GERUNDS.get(base, (base[:-1] if silent else base) + "ing"),
        particle=particle,
        tail=tail,
        prefix=prefix,
        german=infinitive,
        german_first={"mögen": "mag", "sein": "bin"}.get(infinitive, stem + "e"),
        german_third=present,
        german_past=preterite,
        german_participle=prefix + participle,
        auxiliary="sein" if "sein" in forms[3:] else "haben",
        case="dat" if "d" in flags else "acc",
        objects=tuple(k for kind in kinds.split() for k in _KIND_SETS.get(kind, (kind,))),
        stative="s" in flags,
        punctual="p" in flags,
    )


def _verbs(table: str) -> list[Verb]:
    return [_verb(line) for line in table.strip().splitlines()]


# "english past participle|prefix+german third past participle auxiliary|kinds of object|flags". A single English or
# German word is regular; "look~for" has a tail, "pick_up" a movable particle. Flags: s stative, p punctual, d an object
# in the dative.
TRANSITIVE = _verbs("""
see saw seen|sehen sieht sah gesehen|people animal thing vehicle transport building|s
hear heard heard|hören|people animal transport|s
know knew known|kennen kennt kannte gekannt|people building|s
love|lieben|people animal|s
need|brauchen|thing furniture vehicle|s
have had had|haben hat hatte gehabt|animal thing vehicle|s
buy bought bought|kaufen|buyable
sell sold sold|verkaufen verkauft verkaufte verkauft|buyable animal
find found found|finden findet fand gefunden|thing animal|p
lose lost lost|verlieren verliert verlor verloren|small clothes|p
look~for|suchen|people animal thing
carry|tragen trägt trug getragen|small luggage furniture
wash|waschen wäscht wusch gewaschen|clothes vehicle animal
repair|reparieren repariert reparierte repariert|device vehicle opening
draw drew drawn|zeichnen zeichnet zeichnete gezeichnet|animal building people
read read read|lesen liest las gelesen|text paper
write wrote written|schreiben schreibt schrieb geschrieben|text
eat ate eaten|essen isst aß gegessen|edible
cook|kochen|dish
bake|backen bäckt backte gebacken|baked
drink drank drunk|trinken trinkt trank getrunken|drink
open|öffnen öffnet öffnete geöffnet|opening luggage
close|schließen schließt schloss geschlossen|opening luggage
visit|besuchen besucht besuchte besucht|people building
ask|fragen|people
forget forgot forgotten|vergessen vergisst vergaß vergessen|small clothes text|p
clean|putzen putzt putzte geputzt|opening device
photograph|fotografieren fotografiert fotografierte fotografiert|people animal building
build built built|bauen|building furniture
call|an+rufen ruft rief gerufen|people
pick_up|ab+holen|people luggage
invite|ein+laden lädt lud geladen|people
pack|ein+packen|clothes small text
unpack|aus+packen|luggage small
turn_on|ein+schalten schaltet schaltete geschaltet|device
turn_off|aus+schalten schaltet schaltete geschaltet|device
throw_away threw thrown|weg+werfen wirft warf geworfen|small clothes text
help|helfen hilft half geholfen|people|d
thank|danken|people|d
follow|folgen folgt folgte gefolgt sein|people animal|d
answer|antworten antwortet antwortete geantwortet|people|d
congratulate|gratulieren gratuliert gratulierte gratuliert|people|d
listen~to|zu+hören|people|d
like|mögen mag mochte gemocht|people animal edible drink|s
""")
DITRANSITIVE = _verbs("""
give gave given|geben gibt gab gegeben|thing food
show showed shown|zeigen|thing animal building
send sent sent|schicken|small text
lend lent lent|leihen leiht lieh geliehen|text device vehicle
bring brought brought|bringen bringt brachte gebracht|small text food
""")
INTRANSITIVE = _verbs("""
sleep slept slept|schlafen schläft schlief geschlafen|place
work|arbeiten arbeitet arbeitete gearbeitet|place
dance|tanzen tanzt tanzte getanzt|place
sing sang sung|singen singt sang gesungen|place
laugh|lachen|none
wait|warten wartet wartete gewartet|place
swim swam swum|schwimmen schwimmt schwamm geschwommen sein|none
play|spielen|place
cry|weinen|none
stay|bleiben bleibt blieb geblieben sein|place_needed
get_up got got|auf+stehen steht stand gestanden sein|clock
wake_up woke woken|auf+wachen wacht wachte gewacht sein|clock
fall_asleep fell fallen|ein+schlafen schläft schlief geschlafen sein|clock
come_back came come|zurück+kommen kommt kam gekommen sein|clock
""")
MOTION = _verbs("""
go went gone|gehen geht ging gegangen sein|place
drive drove driven|fahren fährt fuhr gefahren sein|place city
travel travelled travelled|reisen reist reiste gereist sein|city
run ran run|laufen läuft lief gelaufen sein|place
""")
TRAFFIC = _verbs("""
arrive|an+kommen kommt kam gekommen sein|
depart|ab+fahren fährt fuhr gefahren sein|
""")
BE, LIVE, COST, BELONG, LIE, PUT, RAIN, SNOW = _verbs("""
be was been|sein ist war gewesen sein||s
live|wohnen|city|s
cost cost cost|kosten kostet kostete gekostet||s
belong~to|gehören gehört gehörte gehört|people|s
lie lay lain|liegen liegt lag gelegen|furniture|s
put put put|legen|furniture
rain|regnen regnet regnete geregnet|
snow|schneien schneit schneite geschneit|
""")

MODALS = [
    Modal("can", "can", True, "", "können", "kann"),
    Modal("must", "must", True, "", "müssen", "muss", may_be_negated=False),
    Modal("should", "should", True, "", "sollten", "sollte"),
    Modal("want", "wants", False, "to", "wollen", "will"),
    Modal("would", "would", True, "like to", "möchten", "möchte"),
]
