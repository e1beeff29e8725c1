"""Reports of public affairs and business, in several wordings each."""

from __future__ import annotations

from demo_topic import Topic

COUNCIL = Topic(
    outcomes=(
        (
            {"voted": "approved", "did": "voted for"},
            "{town} council approves {facility} for {million} million.",
        ),
        (
            {"voted": "rejected", "did": "voted against"},
            "{town} council rejects {facility} for {million} million.",
        ),
    ),
    choices={
        "facility": (
            "a new library",
            "a new swimming pool",
            "a tram line",
            "a sports hall",
            "a new bridge",
            "a youth centre",
            "a bus station",
            "a public park",
        ),
        "party": ("Greens", "Liberals", "Conservatives", "Social Democrats"),
    },
    keys=(
        (
            "The city council of {town} {voted} {facility} on {day}.",
            "On {day} the council of {town} {did} {facility}.",
            "After a long debate on {day}, {town}'s councillors {voted} {facility}.",
        ),
        (
            "The project would cost {million} million euros.",
            "Planners put the price at {million} million euros.",
            "The project had been budgeted at {million} million euros.",
        ),
    ),
    sides=(
        (
            "Mayor {person} said that the debate had lasted {few} hours.",
            "The debate took {few} hours, according to mayor {person}.",
        ),
        (
            "{person2}, who has lived in the town for {years} years, watched from the gallery.",
            "Among the {few2} visitors was {person2}, a retired teacher.",
        ),
        (
            "Last year the council spent {million2} million euros on roads.",
            "The town has debts of {million2} million euros.",
        ),
        (
            "The {party} had asked for a second report.",
            "A spokesman for the {party} called the evening a long one.",
        ),
        ("The next meeting will be held on {date}.", "Councillors will meet again on {date}."),
    ),
)
COMPANY = Topic(
    outcomes=(
        (
            {"went": "rose", "more": "higher"},
            "Profit at {company} rises {percent} percent to {million} million euros.",
        ),
        (
            {"went": "fell", "more": "lower"},
            "Profit at {company} falls {percent} percent to {million} million euros.",
        ),
    ),
    choices={"sector": ("software", "furniture", "food", "clothing", "machine", "toy")},
    keys=(
        (
            "{company}, a {sector} maker from {town}, published its results on {day}.",
            "The {sector} company {company} of {town} opened its books on {day}.",
        ),
        (
            "The company's profit {went} by {percent} percent to {million} million euros.",
            "At {million} million euros, the company's profit was {percent} percent {more} than a year ago.",
            "The profit of the company {went} {percent} percent and stood at {million} million euros.",
        ),
    ),
    sides=(
        (
            "Director {person} thanked the {thousands} employees.",
            "The firm, led by {person}, employs {thousands} people.",
        ),
        ("The company was founded in {year} by {person2}.", "{person2} had started the business in {year}."),
        (
            "Its rival {company2} had reported a profit of {million2} million euros.",
            "At {company2}, the largest competitor, profit was {million2} million euros.",
        ),
        (
            "Sales in Asia made up {percent2} percent of the total.",
            "Analyst {person3} had expected a change of {percent2} percent.",
        ),
        ("A new plant in {town2} will open in {month}.", "The plant in {town2} is to close in {month}."),
    ),
)
ELECTION = Topic(
    outcomes=(
        ({"office": "mayor"}, "{person} elected mayor of {town} with {majority} percent of the vote."),
        ({"office": "governor"}, "{person} elected governor of {town} with {majority} percent of the vote."),
    ),
    choices={"job": ("a lawyer", "a nurse", "a teacher", "a farmer", "a baker")},
    keys=(
        (
            "{person} will be the next {office} of {town}.",
            "The voters of {town} chose {person} as their {office} on {day}.",
            "{town} has a new {office}: {person}.",
        ),
        (
            "The winner received {majority} percent of the vote.",
            "That was the choice of {majority} percent of the voters.",
            "After the count the winner stood at {majority} percent.",
        ),
    ),
    sides=(
        ("{person2} came second with {minority} percent.", "Only {minority} percent went to {person2}."),
        ("Turnout was {percent3} percent.", "{percent3} percent of the citizens went to the polls."),
        (
            "{person3}, who held the office for {few} years, did not stand again.",
            "After {few} years in office, {person3} is to retire.",
        ),
        (
            "There were {hundreds} helpers at the polling stations.",
            "The count, with {hundreds} helpers, ended at midnight.",
        ),
        (
            "The candidate {person4}, {job}, withdrew in {month}.",
            "In {month} {person4}, {job}, had given up.",
        ),
    ),
)
THEFT = Topic(
    outcomes=(
        ({"held": "arrested"}, "Police arrest {few} suspects after theft of {goods} in {town}."),
        ({"held": "are looking for"}, "Police look for {few} suspects after theft of {goods} in {town}."),
    ),
    choices={"goods": ("bicycles", "paintings", "watches", "computers", "cameras", "violins")},
    keys=(
        (
            "Thieves took {goods} from a shop in {town} on {day}.",
            "In {town} {goods} were stolen on {day}.",
            "From a shop window in {town} {goods} disappeared on {day}.",
        ),
        ("The police {held} {few} suspects.", "Officers {held} {few} suspects, a spokesman said."),
    ),
    sides=(
        (
            "The owner, {person}, had locked up at {hour}.",
            "{person}, who owns the place, was away for {few2} days.",
        ),
        ("The loss is {thousands} euros.", "This is the {few3}th case in the region since {month}."),
        ("A white van with a number plate from {town2} was seen.", "The trail leads to {town2}."),
        ("Inspector {person2} asks witnesses to call {phone}.", "Witnesses are asked to call {phone}."),
        ("In {year} there were {hundreds} such cases.", "Judge {person3} will hear the case on {date}."),
    ),
)
APPOINTMENT = Topic(
    outcomes=(
        ({"job": "director"}, "{person} to follow {person2} as director of {institution} in {town}."),
        ({"job": "head"}, "{person} to follow {person2} as head of {institution} in {town}."),
    ),
    choices={
        "institution": (
            "the zoo",
            "the museum",
            "the hospital",
            "the opera",
            "the university",
            "the port",
            "the library",
        )
    },
    keys=(
        (
            "{person} will become {job} of {institution} in {town}.",
            "In {town} {institution} has found a new {job} in {person}.",
            "The new {job} of {institution} in {town} is {person}.",
        ),
        (
            "{person2}, who did the work for {few} years, is leaving.",
            "The post was held by {person2} until now.",
            "So far {person2} has been in charge there.",
        ),
    ),
    sides=(
        (
            "{person3}, the chair of the board, spoke of {hundreds} applications.",
            "The board, led by {person3}, had read {hundreds} applications.",
        ),
        ("The contract is for {few2} years.", "The contract begins on {date}."),
        (
            "{thousands} people visit the place each year.",
            "The house has a budget of {million} million euros.",
        ),
        ("{person4} of {town2} had been named as well.", "The press had named {person4} as the favourite."),
        ("The place was opened in {year}.", "A new wing will be ready in {month}."),
    ),
)

AFFAIRS = (COUNCIL, COMPANY, ELECTION, THEFT, APPOINTMENT)
