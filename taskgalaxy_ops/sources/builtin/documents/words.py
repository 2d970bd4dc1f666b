"""Invented names, goods and sentences for the generated documents: no real person, company or address."""

from __future__ import annotations

import datetime
from random import Random
from typing import NamedTuple


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split("|" if "|" in text else None))


FIRST = _words(
    "Ada Anton Bela Bruno Carla Cyril Dana Dmitri Edda Emil Farah Felix Gerda Goran Hana Hugo Ida Ivan Jana Jonas Kaia "
    "Karim Lena Luca Maren Milo Nadia Nils Olga Omar Petra Quinn Rafael Rosa Samir Selma Tariq Tilda Ulla Viktor Wanda "
    "Xenia Yara Yusuf Zora Amara Boris Celia Diego Elif"
)
LAST = _words(
    "Abendroth Alvarsson Baumgart Bellini Castellan Corvin Dahlberg Dupree Eastwick Eklund Fairbank Ferrante Grimaldi "
    "Halvorsen Hartwell Ingram Jansky Kestrel Kowalski Lindqvist Lombard Marchetti Mercer Nakamura Norwood Okafor "
    "Orlando Pemberton Petrov Quimby Ravenel Rosewood Santoro Silverman Thackeray Tremaine Ulrich Valdez Vance "
    "Westbrook Winter Yardley Zeller Zimmer"
)
TOWNS = _words(
    "Alderney Ashford Birchwood Bramley Calder Claymont Dunmore Eastvale Elmsworth Fairhaven Glenrock Greystone "
    "Harborview Hollowell Ironbridge Kingsmere Lakewood Larkspur Maplewood Marlow Millbrook Northgate Oakhurst "
    "Pinecrest Queensbury Ravenshill Redcliff Rosedale Saltmarsh Silverton Stonebridge Thornbury Underhill Valemont "
    "Westmere Whitewater Willowdale Wyndham"
)
STREETS = _words(
    "Acorn Anchor Baker Bridge Canal Castle Cedar Chapel Cherry Church Copper Elm Ferry Foundry Garden Granite Harbor "
    "Hazel Hill Juniper Lantern Laurel Lime Linden Market Meadow Mill Museum Orchard Park Pearl Poplar Quarry River "
    "Rose Saddle School Station Sunset Tailor Temple Tower Vine Walnut Willow Windmill"
)
ROADS = ("Street", "Road", "Lane", "Avenue")
TRADES = _words(
    "Bakery Bookshop Café Florist Pharmacy Grocery Hardware Stationers Toys Cycles Optics Records Tailors Garage "
    "Kitchen Gallery Nursery Bistro Deli Antiques"
)
BRANDS = _words(
    "Amberline Bluefin Brightwater Cloudberry Copperleaf Driftwood Evergreen Fernway Goldcrest Greenfield Hawthorn "
    "Ironwood Juniper Kingfisher Larkfield Moonrise Nightingale Northstar Oakley Pebble Quicksilver Redwood Saffron "
    "Seabright Silverfox Starling Sunnyside Thistle Turnstone Velvet Wavecrest Whitestone Wildrose Zephyr"
)
FIRMS = ("Ltd", "Group", "Partners", "Studio", "Works", "Labs", "& Sons", "Logistics", "Consulting", "Design")
JOBS = _words(
    "Architect|Accountant|Project Manager|Software Engineer|Head of Sales|Photographer|Veterinarian|Interior Designer|"
    "Legal Adviser|Data Analyst|Event Planner|Translator|Civil Engineer|Dentist|Marketing Director|Music Teacher|"
    "Landscape Gardener|Financial Planner|Research Scientist|Head Chef"
)
FOODS = _words(
    "Oat biscuits|Tomato sauce|Fruit muesli|Vanilla yoghurt|Potato chips|Peanut butter|Rye crackers|Chocolate bar|"
    "Vegetable soup|Apple juice|Cheese spread|Rice pudding"
)
FORMS = _words(
    "Membership Application|Library Card Request|Change of Address|Visitor Registration|Course Enrolment|"
    "Parking Permit|Lost Property Report|Volunteer Form"
)
SWITCHES = _words(
    "Notifications|Dark mode|Location|Bluetooth|Automatic updates|Sound|Save data|Sync contacts|Night light|Captions|"
    "Vibration|Backup"
)
SUBJECT_LINES = _words(
    "Minutes of the meeting|Your order has been sent|Lunch on Friday?|Invoice attached|Holiday pictures|"
    "Password changed|Reminder: dentist|Offer for a new roof|Welcome aboard|Question about the plan|"
    "Flight confirmation|Happy birthday!"
)
GROCERIES = {
    "Apples 1 kg": (1.5, 4), "Whole milk 1 l": (0.9, 2), "Rye bread": (2, 5), "Butter 250 g": (2, 4),
    "Eggs, ten": (2.5, 4.5), "Tomatoes 500 g": (1.5, 3.5), "Olive oil": (5, 12), "Basmati rice": (2, 5),
    "Green tea": (2, 6), "Coffee beans": (6, 14), "Honey jar": (4, 9), "Goat cheese": (3, 7), "Bananas 1 kg": (1, 2.5),
    "Carrots 1 kg": (1, 2.5), "Dark chocolate": (1.5, 4), "Orange juice": (2, 4), "Spaghetti": (1, 3),
    "Salted nuts": (2, 5), "Yoghurt": (0.8, 2), "Lemons, four": (1.5, 3), "Potatoes 2 kg": (2, 4),
    "Paper towels": (2, 5), "Dish soap": (1.5, 3.5), "Cinnamon rolls": (2, 5), "Cereal": (2.5, 5),
    "Strawberry jam": (2, 5), "Sparkling water": (0.6, 1.5), "Mushrooms": (1.5, 3.5),
}  # fmt: skip
SERVICES = {
    "Website design": (400, 2400), "Office chairs": (90, 420), "Logo package": (150, 900), "Colour prints": (40, 300),
    "Window cleaning": (60, 240), "Laptop stand": (25, 80), "Floor polishing": (80, 390), "Translation": (70, 600),
    "Photo session": (120, 700), "Garden care": (90, 350), "Network cable": (15, 90), "Desk lamp": (20, 110),
    "Safety training": (200, 900), "Data backup": (50, 260), "Wall painting": (180, 950), "Courier service": (20, 120),
    "Whiteboard": (60, 250), "Software licence": (80, 640), "Piano tuning": (80, 190), "Catering, lunch": (140, 820),
}  # fmt: skip
DISHES = {
    "Starters": _words(
        "Tomato soup|Garlic bread|Caesar salad|Smoked salmon|Onion rings|Grilled halloumi|Pumpkin soup|Bruschetta|"
        "Stuffed olives|Prawn cocktail|Beetroot carpaccio|Spring rolls"
    ),
    "Mains": _words(
        "Roast chicken|Mushroom risotto|Beef stew|Fish and chips|Vegetable curry|Lamb chops|Spinach lasagne|"
        "Grilled trout|Lentil burger|Duck with plums|Pepper steak|Seafood pasta|Aubergine bake|Pork schnitzel"
    ),
    "Desserts": _words(
        "Apple pie|Chocolate cake|Lemon tart|Vanilla ice cream|Cheesecake|Rice pudding|Fruit salad|Tiramisu|"
        "Carrot cake|Plum dumplings"
    ),
    "Drinks": _words("Lemonade|Iced tea|Espresso|House wine|Apple juice|Ginger beer|Hot chocolate|Mint tea"),
}
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
SUBJECTS = _words("Maths English Biology History Physics Art Music Sport Chemistry Geography Latin Drama")
ANIMALS = _words("Dogs Cats Rabbits Horses Goats Ducks Geese Sheep Cows Parrots Hamsters Turtles")
FRUITS = _words("Apples Pears Plums Apricots Grapes Oranges Lemons Melons Bananas Mangoes Kiwis Figs")
SPORTS = _words("Football Tennis Swimming Rowing Hockey Cycling Running Judo Climbing Sailing Golf Chess")
VEHICLES = _words("Cars Trucks Buses Trams Bicycles Scooters Ferries Trains Taxis Vans")
PRODUCTS = _words("Lamps Chairs Desks Shelves Sofas Beds Mirrors Clocks Rugs Stools Tables Vases")
DEVICES = _words("Phones Tablets Laptops Cameras Printers Speakers Watches Routers Monitors Keyboards")
ENERGY = _words("Wind Solar Hydro Coal Gas Nuclear Biomass Geothermal")
BUDGETS = _words("Rent Food Travel Books Clothes Insurance Leisure Savings Energy Phone")
TEAMS = _words("Falcons Tigers Comets Wolves Rockets Sharks Eagles Bears Hornets Pirates Giants Rangers")


class Measure(NamedTuple):
    """Something that a chart can show: whose categories, what is counted, in which unit and range."""

    title: str
    categories: tuple[str, ...]
    axis: str
    low: int
    high: int


MEASURES = (
    Measure("Animals at {town} Farm", ANIMALS, "Animals", 4, 60),
    Measure("Fruit sold at {town} Market", FRUITS, "Crates", 10, 95),
    Measure("Club members in {town}", SPORTS, "Members", 12, 180),
    Measure("Traffic on {street} Street", VEHICLES, "Vehicles an hour", 15, 240),
    Measure("{brand} furniture sales", PRODUCTS, "Units sold", 20, 400),
    Measure("{brand} device repairs", DEVICES, "Repairs", 5, 90),
    Measure("Electricity in {town}", ENERGY, "Gigawatt hours", 10, 300),
    Measure("{first}'s monthly spending", BUDGETS, "Euros", 20, 700),
    Measure("Favourite subjects, {town} School", SUBJECTS, "Pupils", 4, 70),
    Measure("Points of the teams in {town}", TEAMS, "Points", 3, 88),
    Measure("Visitors by weekday, {town} Museum", WEEKDAYS, "Visitors", 40, 900),
)
SERIES = (  # two or more spans that are compared
    ("2018", "2019", "2020"),
    ("2021", "2022", "2023"),
    ("2024", "2025", "2026"),
    ("Spring", "Summer", "Autumn"),
    ("January", "February", "March"),
    ("Week 1", "Week 2", "Week 3"),
)
TRENDS = (  # title of one line, of several (a town each), axis, low, high: what changes over time
    ("Temperature in {town}", "Temperature by town", "Degrees Celsius", -5, 30),
    ("Rainfall in {town}", "Rainfall by town", "Millimetres", 10, 140),
    ("{brand} revenue", "{brand} revenue by town", "Thousand euros", 40, 480),
    ("Visitors of {town} Castle", "Castle visitors by town", "Hundred people", 5, 90),
    ("Water level of the {street} river", "Water level by town", "Centimetres", 60, 340),
    ("Subscribers of {brand}", "{brand} subscribers by town", "Thousands", 2, 75),
    ("Price of a {brand} share", "Price of a train ticket by town", "Dollars", 12, 160),
)
PAIRS = (  # title, x axis, y axis, (x low, high), slope, intercept, noise
    ("Height and weight of the players", "Height (cm)", "Weight (kg)", (155, 200), 0.9, -90, 6),
    ("Study time and test score", "Hours of study", "Score (points)", (0, 20), 3.6, 22, 7),
    ("Age and price of used cars", "Age (years)", "Price (thousand euros)", (1, 15), -1.5, 27, 2),
    ("Temperature and ice cream sales", "Temperature (°C)", "Ice creams sold", (10, 36), 9, -60, 22),
    ("Altitude and air temperature", "Altitude (m)", "Temperature (°C)", (0, 3000), -0.0065, 22, 1.6),
    ("Rain and umbrellas sold", "Rain (mm)", "Umbrellas", (0, 60), 1.4, 8, 7),
    ("Shoe size and reading score", "Shoe size", "Reading score", (30, 46), 0, 55, 12),
)
SENTENCES = _words(
    "The council met on Monday to discuss the new bridge.|Work will begin in early spring and last two years.|"
    "Most residents welcomed the plan, though some fear the noise.|A second meeting has been called for next month.|"
    "The library will stay open during the works.|Tickets can be bought at the town hall and online.|"
    "The harvest was better than anyone had hoped.|Farmers speak of the driest summer in a decade.|"
    "Children from three schools planted four hundred trees.|The river has risen by a hand's width since Friday.|"
    "A small museum tells the story of the old mill.|Volunteers repaired the roof within a single weekend.|"
    "The orchestra closed the evening with a quiet piece.|Visitors came from as far away as the coast.|"
    "The new tram line carries nine thousand people a day.|Prices have hardly changed since last year.|"
    "Researchers counted more butterflies than before.|The old lighthouse is to become a guest house.|"
    "A bakery on the square has opened its doors again.|The fair attracts makers of toys, baskets and pots.|"
    "Engineers measured the wind on the ridge for a year.|The results will be published in the autumn.|"
    "Each garden is tended by a family of the quarter.|Night trains are to return to the northern line.|"
    "The team trained in rain and snow all winter.|Nobody expected the underdogs to win the cup.|"
    "A grant pays for half of the costs.|The rest must be raised by the people themselves.|"
    "Bees were brought to the roof of the theatre.|Their honey is sold in the foyer.|"
    "The clock on the tower is five minutes slow.|It will be mended when the swallows have left."
)
HEADLINES = _words(
    "A New Bridge for {town}|The Quiet Return of the Night Train|What the River Taught {town}|"
    "Bees Above the Rooftops|{town} Plants a Forest|The Mill That Would Not Stop|Lights on the {street} Hill|"
    "How {town} Saved Its Library|A Summer Without Rain|The Last Lighthouse Keeper|Winter Training Pays Off|"
    "Small Shops, Big Plans|Counting Butterflies in {town}|The Tower Clock Runs Late"
)
BOOKS = _words(
    "The {adjective} {noun}|A {noun} in {town}|{noun} and Ashes|The {noun} Keeper|Beyond the {adjective} {noun}|"
    "Letters from {town}|The {noun} of {town}|{adjective} Waters|The Last {noun}|Seven {adjective} Days"
)
ADJECTIVES = _words(
    "Silent Golden Hidden Broken Crimson Distant Frozen Gentle Hollow Ivory Lonely Northern Open Pale Restless "
    "Scarlet Tender Unseen Wandering Winter"
)
NOUNS = _words(
    "Garden River Lantern Orchard Compass Harbour Mountain Mirror Feather Clockmaker Island Letter Meadow Sparrow "
    "Telescope Violin Window Lighthouse Forest Bridge"
)
EVENTS = _words(
    "Jazz Night|Book Fair|Spring Concert|Science Day|Flea Market|Film Festival|Food Market|Art Exhibition|Open Day|"
    "Charity Run|Chess Tournament|Garden Show|Robot Workshop|Poetry Slam|Kite Festival|Dance Gala"
)


def fill(r: Random, pattern: str) -> str:
    """A pattern with each of its {names} replaced by a word."""
    return pattern.format(
        town=r.choice(TOWNS), street=r.choice(STREETS), brand=r.choice(BRANDS), first=r.choice(FIRST),
        adjective=r.choice(ADJECTIVES), noun=r.choice(NOUNS),
    )  # fmt: skip


def person(r: Random) -> str:
    """First and last name."""
    return f"{r.choice(FIRST)} {r.choice(LAST)}"


def mail(name: str) -> str:
    """An address on example.org."""
    return f"{name.lower().replace(' ', '.')}@example.org"


def phone(r: Random) -> str:
    """A number from the range that is reserved for fiction."""
    return f"555-01{r.randrange(100):02}"


def street(r: Random) -> str:
    """Number and street."""
    return f"{r.randint(1, 240)} {r.choice(STREETS)} {r.choice(ROADS)}"


def town(r: Random) -> str:
    """Town and postal code."""
    return f"{r.choice(TOWNS)} {r.randint(10000, 99999)}"


def firm(r: Random) -> str:
    """A company."""
    return f"{r.choice(BRANDS)} {r.choice(FIRMS)}"


def shop(r: Random) -> str:
    """A shop."""
    return f"{r.choice(BRANDS)} {r.choice(TRADES)}"


def date(r: Random) -> datetime.date:
    """A day between 2019 and 2027."""
    return datetime.date(2019, 1, 1) + datetime.timedelta(days=r.randrange(3200))


def long_date(day: datetime.date) -> str:
    """12 March 2024."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def clock(minutes: int) -> str:
    """Minutes since midnight as 08:05."""
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}"


def sentences(r: Random, number: int) -> list[str]:
    """Different sentences."""
    return r.sample(SENTENCES, number)
