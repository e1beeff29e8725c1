"""Reports of public affairs and business."""

from __future__ import annotations

from demo.topic import Outcome, Topic

COUNCIL = Topic(
    outcomes=(
        Outcome("{town} council approves {facility} for {million} million under motion {code}.", {"voted": "approved"}),
        Outcome("{town} council rejects {facility} for {million} million under motion {code}.", {"voted": "rejected"}),
    ),
    choices={
        "facility": "a new library|a swimming pool|a tram line|a sports hall|a new bridge|a bus station|a public park",
        "party": "Greens|Liberals|Conservatives|Social Democrats",
    },
    keys="""
The city council of {town} {voted} {facility} on {date}.
On {date} the council of {town} {voted} {facility}.
After a long meeting on {date}, {town}'s councillors {voted} {facility}.

The project would cost {million} million euros.
Planners put the price at {million} million euros.
The project had been budgeted at {million} million euros.

The vote was on motion {code}.
It had been tabled as motion {code}.
""",
    sides="""
Mayor {person} said that the debate had lasted {dozens} minutes.
The debate took {dozens} minutes, according to mayor {person}.

{person2}, who has lived in the town since {year}, watched from the gallery.
Among the {dozens2} visitors was {person2}, a retired teacher.

Last year the council spent {million2} million euros on roads.
The town has debts of {million2} million euros.

Motion {code2} of the {party} was put off until {date2}.
The {party} withdrew their motion {code2}.

The next meeting will be held in {town2} on {date3}.
Councillors from {town2} will join them on {date3}.

A petition with {thousands} names had been handed in by {person3}.
{person3} had collected {thousands} signatures.
""",
)
RESULTS = Topic(
    outcomes=(
        Outcome("Sales at {company} rise {percent} percent to {million} million euros.", {"went": "rose"}),
        Outcome("Sales at {company} fall {percent} percent to {million} million euros.", {"went": "fell"}),
    ),
    choices={"sector": "software|furniture|food|clothing|machine|toy"},
    keys="""
{company}, a {sector} maker from {town}, published its results on {date}.
The {sector} company {company} of {town} opened its books on {date}.
On {date} the {sector} company {company} of {town} told investors how the year had gone.

The company's sales {went} by {percent} percent in the past year.
Sales of the company {went} {percent} percent.
Compared with a year ago, sales {went} {percent} percent.

They now stand at {million} million euros.
In all, goods for {million} million euros were sold.
The total came to {million} million euros.
""",
    sides="""
Director {person} thanked the {thousands} employees.
The firm, led by {person}, employs {thousands} people.

The company was founded in {year} by {person2}.
{person2} had started the business in {year}.

Its rival {company2} had reported sales of {million2} million euros.
At {company2}, the largest competitor, the figure was {million2} million euros.

Asia made up {percent2} percent of the business.
Analyst {person3} had expected a change of {percent2} percent.

A new plant in {town2} will open on {date2}.
The plant in {town2} is to close on {date2}.

Costs went up by {percent3} percent to {million3} million euros.
The {brand} range, sold since {year2}, cost {million3} million euros to develop.
""",
)
TAKEOVER = Topic(
    outcomes=(
        Outcome("{company} buys {company2} for {million} million euros.", {"deal": "has bought", "noun": "purchase"}),
        Outcome(
            "{company} takes over {company2} for {million} million euros.",
            {"deal": "has taken over", "noun": "takeover"},
        ),
    ),
    choices={"job": "bank|law firm|adviser"},
    keys="""
{company} {deal} its competitor {company2}, both firms said on {date}.
As was announced on {date}, {company} {deal} {company2}.
The rumours were true: {company} {deal} {company2}.

The price is {million} million euros.
The {noun} costs {million} million euros.
Shareholders receive {million} million euros for the {noun}.
""",
    sides="""
{company3} had offered {million2} million euros in {year}.
An offer of {million2} million euros by {company3} had failed.

{person} will lead the new firm from {town}.
The head office will be in {town}, said director {person}.

{thousands} people work there, {hundreds} of them abroad.
Of the {thousands} jobs {hundreds} may go.

The share price rose by {percent} percent to {dozens} euros.
Investors paid {dozens} euros a share, {percent} percent more than the day before.

The {job} {person2} & {person3} had prepared the deal.
{person2} and {person3} spoke for the {job}.

The brand {brand} will be sold by {date2}.
Its {brand} branch has to be closed by {date2}.
""",
)
ELECTION = Topic(
    outcomes=(
        Outcome("{person} elected mayor of {town} with {majority} percent of the vote.", {"office": "mayor"}),
        Outcome("{person} elected governor of {town} with {majority} percent of the vote.", {"office": "governor"}),
    ),
    choices={"job": "a lawyer|a nurse|a teacher|a farmer|a baker"},
    keys="""
{person} will be the next {office} of {town}.
The voters of {town} chose {person} as their {office} on {date}.
{town} has a new {office}: {person}.

The winner received {majority} percent of the vote.
That was the choice of {majority} percent of the voters.
After the count the winner stood at {majority} percent.
""",
    sides="""
{person2} came second with {percent} percent.
Only {percent} percent went to {person2}.

Turnout was {majority2} percent.
{majority2} percent of the citizens went to the polls.

{person3}, who held the office for {dozens} months, did not stand again.
After {dozens} months in office, {person3} is to retire.

There were {hundreds} helpers at the polling stations.
The count, with {hundreds} helpers, ended at {hour}.

The candidate {person4}, {job}, withdrew on {date2}.
On {date2} {person4}, {job}, had given up.

In {town2} the vote will be repeated because {thousands} ballots were lost.
{thousands} votes from {town2} came by post.
""",
)
COURT = Topic(
    outcomes=(
        Outcome(
            "{person} sentenced to {dozens} months for {crime}. The case is {code}.",
            {"ruled": "sentenced", "found": "guilty"},
        ),
    ),
    choices={"crime": "fraud|arson|smuggling|forgery|theft|bribery", "office": "a bank|a post office|a law firm"},
    keys="""
A court in {town} found {person} guilty of {crime} on {date}.
{person} is guilty of {crime}, judges in {town} ruled on {date}.
On {date} a judge in {town} convicted {person} of {crime}.

The sentence is {dozens} months in prison.
The judges imposed a prison term of {dozens} months.
The term of {dozens} months in prison starts at once.

The case is filed under number {code}.
The ruling bears the number {code}.
""",
    sides="""
The prosecutor {person2} had asked for {dozens2} months.
Prosecutor {person2} had wanted {dozens2} months.

Defence lawyer {person3} will appeal by {date2}.
The appeal of lawyer {person3} will be heard on {date2}.

The damage to {company} was {euros} euros.
{company} had lost {euros} euros.

A similar case, {code2}, had ended in {town2} without a verdict.
The court had joined the case with {code2} from {town2}.

Witness {person4} spoke for {dozens3} minutes.
The hearing of {person4}, a clerk in {office}, took {dozens3} minutes.

There were {hundreds} pages of documents from {year}.
Some of the {hundreds} documents went back to {year}.
""",
)
APPOINTMENT = Topic(
    outcomes=(
        Outcome("{person} to follow {person2} as director of {institution} in {town}.", {"job": "director"}),
        Outcome("{person} to follow {person2} as head of {institution} in {town}.", {"job": "head"}),
    ),
    choices={"institution": "the zoo|the museum|the hospital|the opera|the university|the port|the library"},
    keys="""
{person} will become {job} of {institution} in {town}.
In {town} {institution} has found a new {job} in {person}.
The new {job} of {institution} in {town} is {person}.

{person2}, who did the work for {dozens} months, is leaving.
The post was held by {person2} until now.
So far {person2} has been in charge there.
""",
    sides="""
{person3}, the chair of the board, spoke of {hundreds} applications.
The board, led by {person3}, had read {hundreds} applications.

The contract runs until {date}.
The contract begins on {date}.

{thousands} people visit the place each year.
The house has a budget of {million} million euros.

{person4} of {town2} had been named as well.
The press had named {person4} of {town2} as the favourite.

The place was opened in {year}.
A new wing, planned since {year}, will be ready on {date2}.

The union of {town3} asks for {percent} percent more pay.
A strike in {town3} had cost {million2} million euros.
""",
)
RECALL = Topic(
    outcomes=(
        Outcome("{company} recalls {thousands} {goods} of the model {code}.", {"why": "could catch fire"}),
        Outcome("{company} recalls {thousands} {goods} of the model {code}.", {"why": "could break"}),
    ),
    choices={"goods": "kettles|bicycles|heaters|drills|lamps|toasters"},
    keys="""
{company} is calling back {goods} that {why}.
Because they {why}, {goods} made by {company} have to go back to the shops.
Buyers of {goods} made by {company} should return them: they {why}.

{thousands} pieces are affected.
In all, {thousands} of them were sold.
The recall concerns {thousands} pieces.

The model is {code}.
The label on the back reads {code}.
Only the type {code} is concerned.
""",
    sides="""
The type {code2} is safe, said engineer {person}.
Engineer {person} has found no fault in the type {code2}.

The fault had been found in {town} by {person2}.
{person2}, a customer from {town}, was slightly hurt.

A year ago {company2} had to take back {thousands2} pieces.
{company2}, a rival, had exchanged {thousands2} pieces.

Questions are answered at {phone}.
Buyers can call {phone}.

They were sold under the name {brand} until {date}.
The series, named {brand}, had been on sale since {date}.

The price had been {dozens} euros.
The recall costs {million} million euros.
""",
)
AUCTION = Topic(
    outcomes=(
        Outcome("Painting by {person} sold to {person2} for {euros} euros.", {"art": "painting"}),
        Outcome("Drawing by {person} sold to {person2} for {euros} euros.", {"art": "drawing"}),
        Outcome("Statue by {person} sold to {person2} for {euros} euros.", {"art": "statue"}),
    ),
    choices={"item": "a vase|a clock|a carpet|a mirror"},
    keys="""
A {art} by {person} was the most expensive lot of the auction in {town}.
At the auction in {town} on {date} a {art} by {person} brought the highest price.
The star of the sale in {town} was a {art} by {person}.

The buyer was {person2}.
It went to {person2}.
{person2} was the one to get it.

The hammer fell at {euros} euros.
The price was {euros} euros.
It took {euros} euros to win.
""",
    sides="""
The estimate had been {euros2} euros.
Experts had spoken of {euros2} euros.

{person3} had bid by telephone until {hour}.
Until {hour} collector {person3} had hoped to win.

Lot {code}, {item}, found no buyer.
{item} with the number {code} was withdrawn.

The work had hung in the museum of {town2} since {year}.
It was made in {year} in {town2}.

{hundreds} visitors had come to the house of {company}.
{company}, the auction house, counted {hundreds} bidders.

The next sale is on {date2}.
On {date2} the estate of {person4} will be sold.
""",
)

AFFAIRS = (COUNCIL, RESULTS, TAKEOVER, ELECTION, COURT, APPOINTMENT, RECALL, AUCTION)
