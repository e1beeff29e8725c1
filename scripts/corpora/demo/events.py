"""Reports of events: accidents, weather, sport, concerts, finds."""

from __future__ import annotations

from demo.topic import Outcome, Topic

ACCIDENT = Topic(
    outcomes=(
        Outcome("{dozens} people injured in {vehicle} crash near {town} on {date}.", {"hurt": "injured"}),
        Outcome("{dozens} people slightly hurt in {vehicle} crash near {town} on {date}.", {"hurt": "slightly hurt"}),
    ),
    choices={"vehicle": "bus|lorry|tram|train|coach|tractor", "cause": "ice|fog|heavy rain"},
    keys="""
A {vehicle} left its path near {town} on {date}.
Near {town} a {vehicle} ran into a wall on {date}.
There was an accident with a {vehicle} near {town} on {date}.

{dozens} people were {hurt}, the police said.
According to the police, {dozens} people were {hurt}.
Doctors treated {dozens} people who were {hurt}.
""",
    sides="""
The driver had seen the danger too late because of {cause}.
Officer {person} named {cause} as a likely cause.

The road to {town2} was closed until {hour}.
Traffic was sent through {town2} until {hour}.

{person2}, who lives close by, called for help.
A neighbour, {person2}, heard the noise first.

The damage is put at {euros} euros.
Repairs will cost {euros} euros.

The vehicle with the number {code} belongs to {company}.
It had been hired from {company} under the number {code}.

A report is due on {date2}.
In {year} a similar case had led to a limit of {dozens2} kilometres an hour.

{dozens3} passengers were not harmed and went on to {town3}.
On board were {dozens3} children on their way to {town3}.
""",
)
STORM = Topic(
    outcomes=(
        Outcome("Storm {brand} leaves {thousands} homes near {town} without power.", {"weather": "storm"}),
        Outcome("Cyclone {brand} leaves {thousands} homes near {town} without power.", {"weather": "cyclone"}),
        Outcome("Blizzard {brand} leaves {thousands} homes near {town} without power.", {"weather": "blizzard"}),
    ),
    choices={"crop": "apple|cherry|wheat|potato"},
    keys="""
The {weather} {brand} hit the area around {town} on {date}.
On {date} the {weather} {brand} struck the villages near {town}.
The people of {town} woke up to the {weather} {brand} on {date}.

About {thousands} homes had no electricity.
Power was cut in {thousands} homes.
The network operator counted {thousands} homes without light.
""",
    sides="""
Farmer {person} fears for {percent} percent of the {crop} harvest.
{person}, who grows fruit there, lost {dozens} trees.

Wind speeds reached {speed} kilometres an hour.
Gauges showed {speed} kilometres an hour.

{thousands2} sandbags were filled by volunteers.
Volunteers brought {thousands2} sandbags.

Schools in {town2} will stay closed until {date2}.
In {town2} the roads were clear again by {hour}.

The last one, {brand2}, had come in {year}.
It was worse with {brand2} in {year}, says historian {person2}.

The insurer {company} expects claims of {million} million euros.
{million} million euros will be paid by {company}.
""",
)
FLIGHT = Topic(
    outcomes=(
        Outcome(
            "Flight {flight} to {town} lands in {town2} after {trouble}. {hundreds} passengers are safe.",
            {"unhurt": "unhurt"},
        ),
    ),
    choices={"trouble": "engine trouble|a bird strike|smoke in the cabin|a loss of pressure"},
    keys="""
Flight {flight} to {town} had to land because of {trouble}.
Because of {trouble} flight {flight} never reached {town} on {date}.
With {trouble} flight {flight} broke off its journey to {town}.

The aircraft came down in {town2} at {hour}.
At {hour} it touched down safely in {town2}.
The pilots chose the airport of {town2}.

All {hundreds} passengers are safe.
None of the {hundreds} passengers was hurt.
""",
    sides="""
It had left {town3} at {hour2}.
At {hour2} the machine had started from {town3}.

Captain {person} has flown for {company} since {year}.
{company} praised captain {person}.

Flight {flight2} was delayed by {dozens} minutes.
{dozens} minutes later flight {flight2} took others along.

The engine, a {brand}, is to be taken apart by {date2}.
Experts will look at the {brand} engine on {date2}.

{person2}, who sat in row {dozens2}, heard a bang.
"I heard a bang", said {person2} from row {dozens2}.

Repairs will cost {euros} euros.
The airline must pay {euros} euros.
""",
)
BASKETBALL = Topic(
    outcomes=(
        Outcome("{club} beat {club2} {win} with {dozens} points from {person}.", {"beat": "beat", "score": "{win}"}),
        Outcome(
            "{club} lose {defeat} to {club2} despite {dozens} points from {person}.",
            {"beat": "lost to", "score": "{defeat}"},
        ),
    ),
    choices={"kind": "league|cup"},
    keys="""
{club} {beat} {club2} {score} in the {kind} on {date}.
In the {kind}, {club} {beat} {club2} {score} on {date}.
On {date} {club} {beat} {club2} {score}.

{person} scored {dozens} points, more than anyone else.
The best player was {person} with {dozens} points.
Nobody scored more than {person}, who had {dozens} points.
""",
    sides="""
{person2} had {dozens2} points at half-time.
Until the break {person2} led with {dozens2} points.

Referee {person3} sent coach {person4} out at {hour}.
Coach {person4} argued with referee {person3}.

{thousands} fans came to the hall.
The match was seen by {thousands} fans.

{person5} is out with a knee injury until {date2}.
Until {date2} the team has to do without {person5}.

The next opponent is {club3}.
Next week the team travels to {club3} in {town}.

The last match of the two, in {year}, had ended {win2}.
In {year} it had been {win2}.
""",
)
RACE = Topic(
    outcomes=(
        Outcome("{person} wins {town} marathon in {time}.", {"race": "marathon"}),
        Outcome("{person} wins {town} bicycle race in {time}.", {"race": "bicycle race"}),
        Outcome("{person} wins {town} triathlon in {time}.", {"race": "triathlon"}),
    ),
    choices={"drink": "water|tea|juice"},
    keys="""
{person} came first in the {town} {race} on {date}.
The {race} of {town} was won by {person} on {date}.
Nobody could stop {person} at the {town} {race} on {date}.

The winning time was {time}.
The clock stopped at {time} for the winner.
With {time} the winner just missed the record.
""",
    sides="""
{person2} was second in {time2}.
Second place went to {person2}, who needed {time2}.

{thousands} people had entered.
{thousands} people were at the start at {hour}.

Helpers handed out {thousands2} cups of {drink}.
{person3} alone poured {hundreds} cups of {drink}.

The record of {time3} has stood since {year}.
Since {year} the record has been {time3}.

The oldest at the finish was {person4} from {town2}, aged {dozens}.
At {dozens}, {person4} from {town2} was the oldest to arrive.

The sponsor {company} paid {euros} euros.
A prize of {euros} euros came from {company}.
""",
)
CONCERT = Topic(
    outcomes=(
        Outcome("Singer {person} opens {town} festival before {thousands} guests.", {"act": "singer"}),
        Outcome("Pianist {person} opens {town} festival before {thousands} guests.", {"act": "pianist"}),
        Outcome("Violinist {person} opens {town} festival before {thousands} guests.", {"act": "violinist"}),
    ),
    choices={"food": "soup|sausages|pancakes|ice cream"},
    keys="""
The {act} {person} gave the first concert of the {town} festival on {date}.
With a concert by the {act} {person}, the {town} festival began on {date}.
On {date} the {act} {person} opened the festival of {town}.

{thousands} guests filled the seats.
The organisers counted {thousands} guests.
In the end {thousands} guests had found a place.
""",
    sides="""
Conductor {person2} led the orchestra until {hour}.
At {hour} conductor {person2} put down the baton.

Tickets cost {dozens} euros.
A ticket was sold for {dozens} euros.

Cook {person3} served {food} to {hundreds} people.
In front of the hall {person3} sold {food}, {hundreds} portions of it.

The festival was first held in {year}.
{person4} has directed the festival since {year}.

The festival ends on {date2} with a choir from {town2}.
A choir from {town2} will close it on {date2}.

{company} gave {euros} euros for the new stage.
The stage, worth {euros} euros, was lent by {company}.
""",
)
FIRE = Topic(
    outcomes=(
        Outcome(
            "Fire destroys {building} in {town}. Loss of {euros} euros for owner {person}.",
            {"end": "was destroyed", "put": "destroyed"},
        ),
        Outcome(
            "Fire damages {building} in {town}. Loss of {euros} euros for owner {person}.",
            {"end": "was damaged", "put": "damaged"},
        ),
    ),
    choices={"building": "a school|a warehouse|a church|a hotel|a sawmill|a theatre|a bakery"},
    keys="""
In {town} {building} {end} by a fire on {date}.
A fire {put} {building} in {town} on {date}.
Flames {put} {building} in {town} in the night to {date}.

The damage comes to {euros} euros.
Insurers speak of a loss of {euros} euros.
Replacing what burned will take {euros} euros.

The place belongs to {person}.
The owner is {person}.
{person} owns the place.
""",
    sides="""
{hundreds} firefighters were called out.
Fire chief {person2} led {hundreds} firefighters.

{person3} had smelled the smoke at {hour}.
At {hour} the alarm was raised by {person3}, a guard.

Help also came from {town2}.
Engines from {town2} arrived after {dozens} minutes.

Built in {year}, the house had been repaired for {euros2} euros.
In {year} a former owner, {person4}, had spent {euros2} euros on repairs.

The police will report on {date2}.
Inspector {person5} expects first findings by {date2}.

The file has the number {code}.
Witnesses should call {phone} and name the number {code}.
""",
)
FIND = Topic(
    outcomes=(
        Outcome("{person} finds {object} from the year {old} near {town}.", {"who": "Archaeologist"}),
        Outcome("{person} finds {object} from the year {old} near {town}.", {"who": "Hobby diver"}),
    ),
    choices={"object": "a gold ring|a silver coin|a bronze sword|a clay lamp|a stone tablet|a wooden boat"},
    keys="""
{who} {person} has found {object} near {town}.
Near {town} {object} was found by {person}.
{person} was digging near {town} when {object} came to light.

The piece was made in the year {old}.
Tests date the piece to the year {old}.
Experts are sure that the piece is from the year {old}.
""",
    sides="""
{person2} of the museum in {town2} called it a piece of luck.
The museum in {town2}, headed by {person2}, would like to show it.

The piece weighs {hundreds} grams.
It lay {dozens} centimetres below the ground and weighs {hundreds} grams.

In {year} a similar piece had been sold for {euros} euros.
Collectors such as {person3} pay up to {euros} euros for such things.

The team had worked there since {date}.
A team from {town3} had helped since {date}.

An exhibition is planned for {date2}.
From {date2} on the public can see it.

It is listed as {code} in the catalogue.
In the catalogue it stands as {code}, next to a coin from the year {old2}.
""",
)

EVENTS = (ACCIDENT, STORM, FLIGHT, BASKETBALL, RACE, CONCERT, FIRE, FIND)
