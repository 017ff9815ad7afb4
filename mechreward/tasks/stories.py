"""Sentences of word problems: scenes in plain English, and who they are about."""

from __future__ import annotations

from dataclasses import dataclass

SHE = (
    "Alice", "Amina", "Bella", "Carmen", "Clara", "Daria", "Dora", "Elena", "Emma", "Fatima",
    "Grace", "Hana", "Ingrid", "Irene", "Julia", "Karin", "Leila", "Lucy", "Maria", "Maya", "Nadia",
    "Nina", "Olga", "Paula", "Priya", "Rosa", "Sara", "Sofia", "Tara", "Vera", "Yuki", "Zoe",
)  # fmt: skip
HE = (
    "Adam", "Ahmed", "Ben", "Boris", "Carlos", "Daniel", "David", "Emil", "Felix", "George",
    "Hassan", "Henry", "Ivan", "Jack", "Jonas", "Karl", "Kenji", "Leo", "Liam", "Luis", "Mark",
    "Mateo", "Noah", "Omar", "Oscar", "Paul", "Peter", "Ravi", "Samuel", "Simon", "Tom", "Victor",
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """Sentences about one quantity.

    They are filled with `{name}` (whom it is about), the pronouns `{She}`, `{she}`, `{her}`
    (whose), `{Her}`, `{them}` (whom) and `{self}`, `{other}` (somebody else), `{things}` (what is
    counted), `{n}` (the number of the operation) and, in `rows`, `{m}`.

    Attributes
    ----------
    things : tuple of str
        What may be counted.
    start : tuple of str
        How much there is.
    rows : tuple of str
        The same as a product: `m` times `n`.
    more, fewer, times, shares : tuple of str
        What adds, takes away, multiplies and divides.
    double, half : tuple of str
        The same with a 2 that is no digit in the text.
    question : str
        How much there is now.
    compared : bool, default True
        Whether somebody else can have more of it.
    """

    things: tuple[str, ...]
    start: tuple[str, ...]
    rows: tuple[str, ...]
    more: tuple[str, ...]
    fewer: tuple[str, ...]
    times: tuple[str, ...]
    shares: tuple[str, ...]
    double: tuple[str, ...]
    half: tuple[str, ...]
    question: str
    compared: bool = True


# Of scenes with `compared`: what somebody else has, and the two questions that can follow.
THAN_MORE = (
    "{other} has {n} more {things} than {name}.",
    "{name} has {n} fewer {things} than {other}.",
)
THAN_FEWER = (
    "{other} has {n} fewer {things} than {name}.",
    "{name} has {n} more {things} than {other}.",
)
THAN_TIMES = (
    "{other} has {n} times as many {things} as {name}.",
    "For each of the {things} of {name}, {other} has {n}.",
)
HIS = "How many {things} does {other} have?"
TOGETHER = (
    "How many {things} do {name} and {other} have together?",
    "How many {things} do the two of them have in all?",
)

COLLECTION = Scene(
    things=("marbles", "stickers", "shells", "stamps", "coins", "cards", "buttons", "badges"),
    start=(
        "{name} has {n} {things} in a jar.",
        "{name} collects {things} and owns {n} of them.",
        "There are {n} {things} in {name}'s drawer.",
    ),
    rows=(
        "{name} has {m} jars with {n} {things} in each.",
        "{name} keeps {things} in {m} boxes, {n} in every box.",
        "{name} fills {m} pages of an album with {n} {things} a page.",
    ),
    more=(
        "{She} finds {n} more.",
        "{other} gives {them} {n} {things}.",
        "{She} buys another {n} at the market.",
        "On {her} birthday {she} gets {n} new {things}.",
        "In an old coat {she} discovers {n} more {things}.",
    ),
    fewer=(
        "{She} loses {n} of them.",
        "{She} gives {n} {things} to {other}.",
        "{n} of them break and are thrown away.",
        "{She} trades {n} {things} for a book.",
        "{She} sells {n} of {her} {things}.",
    ),
    times=(
        "A year later {she} has {n} times as many.",
        "In a lucky month the collection grows to {n} times its size.",
    ),
    shares=(
        "{She} sorts them into {n} equal bags and keeps only one bag.",
        "{She} divides them equally among {n} children and is one of the children {self}.",
        "{She} makes {n} equal piles and gives all piles but one to a school.",
    ),
    double=(
        "{other} gives {them} as many {things} as {she} already has.",
        "In the summer {she} doubles the number of {her} {things}.",
    ),
    half=(
        "{She} gives half of them away.",
        "Half of the {things} are lost when {she} moves house.",
    ),
    question="How many {things} does {name} have now?",
)
MONEY = Scene(
    things=("dollars", "euros", "pounds"),
    start=(
        "{name} has {n} {things} in {her} purse.",
        "{name} starts the week with {n} {things}.",
        "There are {n} {things} in {name}'s piggy bank.",
    ),
    rows=(
        "{name} works {m} days and earns {n} {things} a day.",
        "{name} saves {n} {things} a week for {m} weeks.",
        "{name} sells {m} drawings for {n} {things} each.",
    ),
    more=(
        "{She} earns {n} {things} by washing cars.",
        "{other} pays back {n} {things} that {she} had lent.",
        "An aunt sends {them} {n} {things}.",
        "{She} wins {n} {things} in a contest.",
    ),
    fewer=(
        "{She} spends {n} {things} on lunch.",
        "A pair of socks costs {them} {n} {things}.",
        "{She} lends {n} {things} to {other}.",
        "{She} pays {n} {things} for a bus ticket.",
        "{She} donates {n} {things} to an animal shelter.",
    ),
    times=(
        "{She} invests everything and gets {n} times the sum back.",
        "After a year of saving {she} has {n} times as much.",
    ),
    shares=(
        "{She} splits the money equally with others, so that each of the {n} people has the same.",
        "{She} keeps one part out of {n} equal parts and gives the rest to {her} family.",
    ),
    double=(
        "{Her} grandfather doubles what {she} has.",
        "{other} gives {her} as much money as {she} already has.",
    ),
    half=("{She} spends half of the money on shoes.", "{She} puts half of it into the bank."),
    question="How many {things} does {name} have now?",
)
BAKERY = Scene(
    things=("rolls", "muffins", "pretzels", "cookies", "pies", "buns"),
    start=(
        "{name} runs a bakery and has {n} {things} on the shelf.",
        "In the morning {name} has baked {n} {things}.",
        "{name} brings {n} {things} to the market.",
    ),
    rows=(
        "{name} bakes {m} trays of {n} {things}.",
        "{name} carries {m} baskets with {n} {things} each to the market.",
        "{name} lays out {things} in {m} rows of {n}.",
    ),
    more=(
        "{She} bakes {n} more.",
        "{other} brings {n} {things} from the kitchen.",
        "Another {n} come out of the oven.",
        "{She} finds {n} {things} left from yesterday.",
    ),
    fewer=(
        "{n} of them burn.",
        "{She} sells {n} {things} before noon.",
        "A customer buys {n} of them.",
        "{other} eats {n} {things}.",
        "{She} throws {n} old {things} away.",
    ),
    times=(
        "For a feast {she} bakes until there are {n} times as many.",
        "With a larger oven {she} raises the number to {n} times what it was.",
    ),
    shares=(
        "{She} packs them into {n} equal boxes and sells all boxes but one.",
        "{She} sends equal shares to {n} shops, of which one is {her} own.",
    ),
    double=(
        "{She} bakes as many again.",
        "A second oven doubles the number of {things}.",
    ),
    half=("{She} sells half of them to a school.", "Half of the {things} are sold by evening."),
    question="How many {things} does {name} have now?",
)
GARDEN = Scene(
    things=("roses", "tulips", "cabbages", "pumpkins", "sunflowers", "bushes"),
    start=(
        "{n} {things} grow in {name}'s garden.",
        "{name} plants {n} {things} in the spring.",
        "{name} takes over a garden with {n} {things}.",
    ),
    rows=(
        "{name} plants {m} rows of {n} {things}.",
        "In {name}'s garden there are {m} beds with {n} {things} each.",
    ),
    more=(
        "{She} plants {n} more.",
        "{other} adds {n} {things} along the fence.",
        "After the rain {n} new ones come up.",
        "{She} moves {n} {things} from the pots into the garden.",
    ),
    fewer=(
        "A storm destroys {n} of them.",
        "{She} digs out {n} {things} for {other}.",
        "Rabbits eat {n} of them.",
        "{n} {things} do not survive the winter.",
        "{She} cuts {n} of them for the table.",
    ),
    times=(
        "In the next spring there are {n} times as many.",
        "{She} plants until {she} has {n} times as many {things}.",
    ),
    shares=(
        "{She} divides the {things} equally over {n} gardens and keeps one garden.",
        "In the frost only one out of every {n} survives.",
    ),
    double=(
        "In the autumn {she} doubles the number of {things}.",
        "{She} plants as many again behind the house.",
    ),
    half=("Snails eat half of them.", "Half of the {things} dry out in the summer."),
    question="How many {things} does {name} have now?",
)
LIBRARY = Scene(
    things=("books", "comics", "magazines", "maps", "novels"),
    start=(
        "{name}'s shelf holds {n} {things}.",
        "{name} owns {n} {things}.",
        "{name} opens a small library with {n} {things}.",
    ),
    rows=(
        "{name} has {m} shelves with {n} {things} on each.",
        "{name} unpacks {m} crates of {n} {things}.",
    ),
    more=(
        "{She} orders {n} more.",
        "{other} donates {n} {things}.",
        "A neighbour leaves {them} {n} {things}.",
        "{n} {things} that were lent out come back.",
    ),
    fewer=(
        "{She} lends {n} {things} to {other}.",
        "{n} of them get wet and are thrown away.",
        "{She} sells {n} {things} at a fair.",
        "{She} gives {n} of them to a hospital.",
    ),
    times=(
        "In ten years the number grows to {n} times what it was.",
        "A gift makes it {n} times as many.",
    ),
    shares=(
        "{She} packs the {things} into {n} equal boxes and keeps one box.",
        "{She} spreads them equally over {n} classrooms, and {her} own is one of these.",
    ),
    double=(
        "{She} inherits as many {things} as {she} already has.",
        "A school gives {them} its {things}, which doubles their number.",
    ),
    half=("{She} gives half of them to {other}.", "Half of the {things} are sold."),
    question="How many {things} does {name} have now?",
)
FARM = Scene(
    things=("sheep", "goats", "hens", "ducks", "cows", "geese", "rabbits"),
    start=(
        "{name} keeps {n} {things} on a farm.",
        "On {name}'s farm live {n} {things}.",
        "{name} buys a farm with {n} {things}.",
    ),
    rows=(
        "{name} has {m} barns with {n} {things} in each.",
        "{name} keeps {things} on {m} meadows, {n} on each.",
    ),
    more=(
        "{n} more are born in the spring.",
        "{She} buys {n} {things} from {other}.",
        "A neighbour who gives up farming leaves {them} {n} {things}.",
        "{n} lost {things} come home.",
    ),
    fewer=(
        "{She} sells {n} of them.",
        "{n} {things} run away.",
        "{other} takes {n} {things} over.",
        "{She} gives {n} of them to a children's zoo.",
    ),
    times=(
        "After some good years there are {n} times as many.",
        "{She} enlarges the farm and soon has {n} times as many {things}.",
    ),
    shares=(
        "{She} and others share the {things} equally, so that each of the {n} farmers has the "
        "same number.",
        "{She} puts them into {n} equal herds and sells all herds but one.",
    ),
    double=("In a year their number doubles.", "{She} buys as many {things} again."),
    half=("{She} sells half of them.", "Half of the {things} are moved to the farm of {other}."),
    question="How many {things} does {name} have now?",
)
BUS = Scene(
    things=("passengers", "people", "tourists", "travellers"),
    start=(
        "{name} drives a bus with {n} {things} in it.",
        "{n} {things} are on {name}'s ferry.",
        "{name}'s train leaves with {n} {things}.",
    ),
    rows=(
        "{name}'s train has {m} cars with {n} {things} in each.",
        "{m} groups of {n} {things} get on {name}'s ferry.",
    ),
    more=(
        "At the next stop {n} get on.",
        "In the village {n} more {things} get on.",
        "{n} {things} who had waited in the rain get on.",
        "At the bridge another {n} come aboard.",
    ),
    fewer=(
        "{n} get off at the museum.",
        "At the harbour {n} {things} leave.",
        "{n} of them get off to walk.",
        "In the old town {n} {things} get off.",
    ),
    times=(
        "At the stadium so many get on that there are {n} times as many.",
        "At the main station the number of {things} rises to {n} times what it was.",
    ),
    shares=(
        "At the border only one out of every {n} may go on.",
        "They then change to {n} equally full smaller vehicles, of which {name} drives one.",
    ),
    double=("At the airport their number doubles.", "At the market as many get on as are there."),
    half=("Half of them get off at the school.", "At the beach half of the {things} leave."),
    question="How many {things} are with {name} now?",
    compared=False,
)
WATER = Scene(
    things=("litres", "buckets", "gallons", "jugs"),
    start=(
        "There are {n} {things} of water in {name}'s tank.",
        "{name} fills a tank with {n} {things} of water.",
        "{name}'s pool holds {n} {things} of water.",
    ),
    rows=(
        "A pump brings {n} {things} of water an hour into {name}'s empty tank, for {m} hours.",
        "{name} empties {m} barrels of {n} {things} of water each into a tank.",
    ),
    more=(
        "Rain adds {n} {things}.",
        "{name} pours in {n} more {things}.",
        "{other} brings {n} {things} from the well.",
        "Overnight {n} {things} run in.",
    ),
    fewer=(
        "{name} takes {n} {things} for the plants.",
        "{n} {things} leak out.",
        "The horses drink {n} {things}.",
        "In the sun {n} {things} dry up.",
        "{other} needs {n} {things} for washing.",
    ),
    times=(
        "A flood raises it to {n} times as much.",
        "{name} goes on pumping until there is {n} times as much.",
    ),
    shares=(
        "{name} lets it out until only one part of {n} equal parts is left.",
        "Then it is spread equally over {n} tanks, and {name} keeps one of these.",
    ),
    double=("A storm doubles it.", "{name} pours in as much again."),
    half=("Half of it is lost through a crack.", "{name} uses half of it to clean the yard."),
    question="How many {things} of water does {name} have now?",
    compared=False,
)
SCENES = (COLLECTION, MONEY, BAKERY, GARDEN, LIBRARY, FARM, BUS, WATER)
