"""Reports of events: sport, weather, accidents, concerts, finds, in several wordings each."""

from __future__ import annotations

from demo_topic import Topic

FOOTBALL = Topic(
    outcomes=(
        ({"beat": "beat", "result": "{win}"}, "{club} beat {club2} {result} with a late goal from {person}."),
        (
            {"beat": "drew with", "result": "{level}"},
            "{club} draw {result} with {club2} after a late goal from {person}.",
        ),
        (
            {"beat": "lost to", "result": "{defeat}"},
            "{club} lose {result} to {club2} despite a late goal from {person}.",
        ),
    ),
    choices={"kind": ("league", "cup")},
    keys=(
        (
            "{club} {beat} {club2} {result} in the {kind} on {day}.",
            "In the {kind}, {club} {beat} {club2} {result} on {day}.",
        ),
        (
            "{person} scored the last goal in minute {minute}.",
            "The last goal came from {person} in minute {minute}.",
            "It was {person} who hit the net {left} minutes before the end.",
        ),
    ),
    sides=(
        (
            "{person2} had opened the scoring from the penalty spot.",
            "The first goal was a header by {person2}.",
        ),
        (
            "Referee {person3} showed {few} yellow cards.",
            "There were {few} yellow cards from referee {person3}.",
        ),
        ("{thousands} fans came to the stadium.", "The match was seen by {thousands} fans."),
        (
            "Goalkeeper {person4} was taken off with a knee injury.",
            "Defender {person4} is out for {few2} weeks.",
        ),
        ("Next week the team travels to {club3}.", "The next opponent is {club3}."),
    ),
)
STORM = Topic(
    outcomes=(
        ({"weather": "storm"}, "Storm leaves {thousands} homes near {town} without power."),
        ({"weather": "flood"}, "Flood leaves {thousands} homes near {town} without power."),
        ({"weather": "blizzard"}, "Blizzard leaves {thousands} homes near {town} without power."),
    ),
    choices={"crop": ("apple", "cherry", "wheat", "potato")},
    keys=(
        (
            "A {weather} hit the area around {town} on {day}.",
            "On {day} a {weather} struck the villages near {town}.",
            "The people of {town} woke up to a {weather} on {day}.",
        ),
        (
            "About {thousands} homes had no electricity.",
            "Power was cut in {thousands} homes.",
            "The network operator counted {thousands} homes without light.",
        ),
    ),
    sides=(
        (
            "Farmer {person} fears for {percent} percent of the {crop} harvest.",
            "{person}, who grows fruit there, lost {few} trees.",
        ),
        ("Wind speeds reached {speed} kilometres an hour.", "Gauges showed {speed} kilometres an hour."),
        ("{thousands2} sandbags were filled by volunteers.", "Volunteers brought {thousands2} sandbags."),
        ("Schools in {town2} will stay open.", "In {town2} the roads were clear again by noon."),
        ("The last such event was in {year}.", "It was worse in {year}, says historian {person2}."),
    ),
)
ACCIDENT = Topic(
    outcomes=(
        ({"hurt": "injured"}, "{few} people injured in {vehicle} crash near {town}."),
        ({"hurt": "slightly hurt"}, "{few} people slightly hurt in {vehicle} crash near {town}."),
    ),
    choices={
        "vehicle": ("bus", "lorry", "tram", "train", "taxi", "tractor"),
        "cause": ("ice", "fog", "heavy rain"),
    },
    keys=(
        (
            "A {vehicle} left its path near {town} on {day} evening.",
            "Near {town} a {vehicle} ran into a wall on {day}.",
            "There was an accident with a {vehicle} near {town} on {day}.",
        ),
        (
            "{few} people were {hurt}, the police said.",
            "According to the police, {few} people were {hurt}.",
            "Doctors treated {few} people who were {hurt}.",
        ),
    ),
    sides=(
        (
            "The driver, aged {years}, had seen the danger too late because of {cause}.",
            "Officer {person} named {cause} as a likely cause.",
        ),
        (
            "The road to {town2} was closed for {few2} hours.",
            "Traffic was sent through {town2} for {few2} hours.",
        ),
        ("{person2}, who lives close by, called for help.", "A neighbour, {person2}, heard the noise first."),
        ("The damage is put at {thousands} euros.", "Repairs will cost {thousands} euros."),
        (
            "This was the second such accident since {month}.",
            "In {year} a similar case had led to a speed limit.",
        ),
    ),
)
CONCERT = Topic(
    outcomes=(
        ({"act": "singer"}, "Singer {person} opens {town} festival before {thousands} guests."),
        ({"act": "pianist"}, "Pianist {person} opens {town} festival before {thousands} guests."),
        ({"act": "violinist"}, "Violinist {person} opens {town} festival before {thousands} guests."),
    ),
    choices={"food": ("soup", "sausages", "pancakes", "ice cream")},
    keys=(
        (
            "The {act} {person} gave the first concert of the {town} festival on {day}.",
            "With a concert by the {act} {person}, the {town} festival began on {day}.",
            "On {day} the {act} {person} opened the festival of {town}.",
        ),
        (
            "{thousands} guests filled the seats.",
            "The organisers counted {thousands} guests.",
            "In the end {thousands} guests had found a place.",
        ),
    ),
    sides=(
        (
            "Conductor {person2} led the orchestra through {few} encores.",
            "After {few} encores, conductor {person2} put down the baton.",
        ),
        ("Tickets cost {percent} euros.", "A ticket was sold for {percent} euros."),
        (
            "Cook {person3} served {food} to {hundreds} people.",
            "In front of the hall {person3} sold {food}, {hundreds} portions of it.",
        ),
        ("The festival was first held in {year}.", "{person4} has directed the festival since {year}."),
        (
            "The festival ends on {date} with a choir from {town2}.",
            "A choir from {town2} will close it on {date}.",
        ),
    ),
)
FIRE = Topic(
    outcomes=(
        (
            {"end": "was destroyed", "put": "destroyed"},
            "Fire destroys {building} in {town} and costs {million} million.",
        ),
        (
            {"end": "was damaged", "put": "damaged"},
            "Fire damages {building} in {town} and costs {million} million.",
        ),
    ),
    choices={"building": ("a school", "a warehouse", "a church", "a hotel", "a sawmill", "a theatre", "a bakery")},
    keys=(
        (
            "In {town} {building} {end} by a fire on {day}.",
            "A fire {put} {building} in {town} on {day}.",
            "Flames {put} {building} in {town} in the night to {day}.",
        ),
        (
            "The damage comes to {million} million euros.",
            "Insurers speak of a loss of {million} million euros.",
            "Replacing what burned will take {million} million euros.",
        ),
    ),
    sides=(
        ("{crew} firefighters were called out.", "Fire chief {person} led {crew} firefighters."),
        ("{person2}, aged {years}, had smelled the smoke.", "The alarm was raised by {person2}, a guard."),
        ("Help also came from {town2}.", "Engines from {town2} arrived after {few} minutes."),
        (
            "Built in {year}, the house had been repaired for {million2} million euros.",
            "In {year} the owner had spent {million2} million euros on repairs.",
        ),
        ("The police will report on {date}.", "Inspector {person3} expects first findings by {date}."),
    ),
)
FIND = Topic(
    outcomes=(
        ({"who": "Archaeologist"}, "{person} finds {object} from the year {old} near {town}."),
        ({"who": "Hobby diver"}, "{person} finds {object} from the year {old} near {town}."),
    ),
    choices={
        "object": (
            "a gold ring",
            "a silver coin",
            "a bronze sword",
            "a clay lamp",
            "a stone tablet",
            "a wooden boat",
        )
    },
    keys=(
        (
            "{who} {person} has found {object} near {town}.",
            "Near {town} {object} was found by {person}.",
            "{person} was digging near {town} when {object} came to light.",
        ),
        (
            "The piece was made in the year {old}.",
            "Tests date the piece to the year {old}.",
            "Experts are sure that the piece is from the year {old}.",
        ),
    ),
    sides=(
        (
            "{person2} of the museum in {town2} called it a piece of luck.",
            "The museum in {town2}, headed by {person2}, would like to show it.",
        ),
        ("The piece lay {few} metres below the ground.", "The piece weighs {hundreds} grams."),
        (
            "In {year} a similar piece had been sold for {thousands} euros.",
            "Collectors pay up to {thousands} euros for such things.",
        ),
        ("The team had worked there for {few2} months.", "A team of {few2} students had helped."),
        ("An exhibition is planned for {month}.", "From {month} on the public can see it."),
    ),
)
MARATHON = Topic(
    outcomes=(
        ({"race": "marathon"}, "{person} wins {town} marathon in {time}."),
        ({"race": "bicycle race"}, "{person} wins {town} bicycle race in {time}."),
        ({"race": "triathlon"}, "{person} wins {town} triathlon in {time}."),
    ),
    choices={"drink": ("water", "tea", "juice")},
    keys=(
        (
            "{person} came first in the {town} {race} on {day}.",
            "The {race} of {town} was won by {person} on {day}.",
            "Nobody could stop {person} at the {town} {race} on {day}.",
        ),
        (
            "The winning time was {time}.",
            "The clock stopped at {time} for the winner.",
            "With {time} the winner just missed the record.",
        ),
    ),
    sides=(
        ("{person2} was second in {slower}.", "Second place went to {person2}, who needed {slower}."),
        ("{thousands} people had entered.", "{thousands} people were at the start."),
        (
            "Helpers handed out {thousands2} cups of {drink}.",
            "{person3} alone poured {hundreds} cups of {drink}.",
        ),
        ("The record of {record} has stood since {year}.", "Since {year} the record has been {record}."),
        (
            "The oldest at the finish was {person4}, aged {years}.",
            "At {years}, {person4} was the oldest to arrive.",
        ),
    ),
)

EVENTS = (FOOTBALL, STORM, ACCIDENT, CONCERT, FIRE, FIND, MARATHON)
