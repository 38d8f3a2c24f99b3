"""A seeded generator of JSON documents: people, orders, configuration, events and free records.

Real JSON corpora are mostly either private or machine dumps; made ones cover the syntax that
constrained decoding needs (nesting, arrays, every scalar type, pretty and compact layouts).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import TypeAlias

DOCUMENTS = 36_000
SEED = 20_240

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = dict[str, Json]

FIRST_NAMES = tuple(
    "Ada Alan Alice Amir Ana Anna Ben Bob Carla Carlos Chen Clara Daniel David Diego Elena Emma "
    "Eva Fatima Felix Grace Hana Henry Hugo Ines Isla Ivan Jack James Jane Jonas Julia Kai Karim "
    "Laura Leo Lily Linus Lucy Maria Mark Max Maya Mia Mina Nina Noah Nora Olga Oliver Omar Oscar "
    "Paul Priya Rosa Ruth Sam Sara Sofia Sven Tara Theo Tim Tom Uma Vera Victor Yuki Zoe".split()
)
LAST_NAMES = tuple(
    "Adams Ahmed Baker Bell Brown Carter Chen Clark Costa Cruz Davis Diaz Evans Fischer Garcia "
    "Gray Green Haddad Hall Hill Ito Jones Kim King Klein Kumar Lee Lopez Martin Meyer Miller "
    "Moore Nguyen Novak Okafor Park Patel Perez Reed Rossi Sato Silva Singh Smith Stone Tanaka "
    "Taylor Turner Walker Weber White Wilson Wong Wright Young".split()
)
CITIES = tuple(
    "Accra Amsterdam Athens Berlin Boston Cairo Chicago Delhi Denver Dublin Hanoi Helsinki Kyoto "
    "Lagos Lima Lisbon London Madrid Milan Nairobi Oslo Paris Porto Prague Rome Seattle Seoul "
    "Sydney Tokyo Toronto Vienna Warsaw Zurich".split()
)
COUNTRIES = tuple(
    "Australia Austria Brazil Canada Chile Egypt France Germany Ghana Greece India Ireland Italy "
    "Japan Kenya Mexico Nigeria Norway Peru Poland Portugal Spain Sweden Vietnam".split()
)
PRODUCTS = tuple(
    "apple backpack bicycle blanket book bottle camera candle chair clock coffee cup desk guitar "
    "hammer headphones jacket kettle keyboard lamp laptop monitor mouse notebook pen pencil phone "
    "pillow printer scarf shoes table tablet tea tent toaster towel umbrella wallet watch".split()
)
COLOURS = ("red", "green", "blue", "black", "white", "yellow", "orange", "purple", "grey", "pink")
WORDS = tuple(
    "active alpha amount area author base batch beta body cache category channel child city code "
    "color comment config content count country created data date default delta depth description "
    "device domain email enabled end entry error event field file filter first flag format group "
    "height host id image index info input item items key kind label language last latency length "
    "level limit line link list location message meta method mode model name node note number "
    "offset option order output owner page parent password path phone point port price priority "
    "profile query range rank rate rating reason region request response result retry role root "
    "route row rule score secret section server service session settings shape size source stage "
    "start state status step summary tag tags target task team text time timeout title token total "
    "type unit update url user value version view volume weight width zone".split()
)


def _name(random: Random) -> str:
    return f"{random.choice(FIRST_NAMES)} {random.choice(LAST_NAMES)}"


def _date(random: Random) -> str:
    year, month, day = random.randint(1990, 2026), random.randint(1, 12), random.randint(1, 28)
    return f"{year}-{month:02d}-{day:02d}"


def _timestamp(random: Random) -> str:
    hour, minute, second = random.randint(0, 23), random.randint(0, 59), random.randint(0, 59)
    return f"{_date(random)}T{hour:02d}:{minute:02d}:{second:02d}Z"


def _email(random: Random, name: str) -> str:
    domain = random.choice(("example.com", "example.org", "mail.com", "test.net"))
    return f"{name.lower().replace(' ', '.')}@{domain}"


def _money(random: Random) -> float:
    return round(random.choice((9.99, 49.0, 250.0, 1200.0)) * random.uniform(0.1, 2.0), 2)


def _some(random: Random, choices: tuple[str, ...], most: int) -> list[Json]:
    return list(random.sample(choices, random.randint(0, most)))


def _address(random: Random) -> JsonObject:
    street = f"{random.randint(1, 250)} {random.choice(LAST_NAMES)} Street"
    return {
        "street": street,
        "city": random.choice(CITIES),
        "country": random.choice(COUNTRIES),
        "zip": f"{random.randint(10000, 99999)}",
    }


def _person(random: Random) -> JsonObject:
    name = _name(random)
    record: JsonObject = {"name": name, "age": random.randint(1, 95)}
    optional: dict[str, Json] = {
        "email": _email(random, name),
        "city": random.choice(CITIES),
        "active": random.random() < 0.6,
        "height": round(random.uniform(1.4, 2.0), 2),
        "address": _address(random),
        "phone": random.choice((None, f"+{random.randint(1, 99)}-{random.randint(100, 999)}-"
                                f"{random.randint(1000, 9999)}")),
        "hobbies": _some(random, ("reading", "chess", "music", "hiking", "cooking", "painting",
                                  "running", "swimming", "gardening", "dancing"), 4),
        "children": [{"name": random.choice(FIRST_NAMES), "age": random.randint(0, 30)}
                     for _ in range(random.randint(0, 3))],
        "birthday": _date(random),
        "married": random.random() < 0.5,
    }  # fmt: skip
    for key in random.sample(sorted(optional), random.randint(0, 6)):
        record[key] = optional[key]
    return {"id": random.randint(1, 9999), **record} if random.random() < 0.4 else record


def _order(random: Random) -> JsonObject:
    items: list[Json] = []
    total = 0.0
    for product in random.sample(PRODUCTS, random.randint(1, 4)):
        price, quantity = _money(random), random.randint(1, 5)
        total += price * quantity
        items.append({"product": product, "quantity": quantity, "price": price})
    return {
        "order_id": random.randint(1000, 99999),
        "customer": _name(random) if random.random() < 0.5 else _person(random),
        "items": items,
        "total": round(total, 2),
        "currency": random.choice(("USD", "EUR", "GBP", "JPY")),
        "status": random.choice(("pending", "paid", "shipped", "delivered", "cancelled")),
        "date": _date(random),
    }


def _product(random: Random) -> JsonObject:
    return {
        "id": random.randint(1, 9999),
        "name": random.choice(PRODUCTS),
        "color": random.choice(COLOURS),
        "price": _money(random),
        "in_stock": random.random() < 0.7,
        "rating": round(random.uniform(1, 5), 1),
        "tags": _some(random, ("new", "sale", "popular", "eco", "limited", "gift", "sport"), 3),
    }


def _configuration(random: Random) -> JsonObject:
    name = random.choice(("web", "api", "worker", "cache", "auth", "search", "mail"))
    record: JsonObject = {
        "name": f"{name}-service",
        "version": f"{random.randint(0, 5)}.{random.randint(0, 20)}.{random.randint(0, 9)}",
        "debug": random.random() < 0.3,
        "server": {
            "host": random.choice(("localhost", "0.0.0.0", "127.0.0.1", f"{name}.example.com")),
            "port": random.choice((80, 443, 3000, 5000, 5432, 6379, 8000, 8080, 9000)),
            "timeout": random.choice((5, 10, 30, 60, 2.5)),
        },
    }
    if random.random() < 0.5:
        record["logging"] = {
            "level": random.choice(("debug", "info", "warning", "error")),
            "file": random.choice((None, f"/var/log/{name}.log")),
        }
    if random.random() < 0.5:
        record["features"] = {
            flag: random.random() < 0.5 for flag in random.sample(("login", "search", "dark_mode", "export", "beta"), 3)
        }
    if random.random() < 0.4:
        record["dependencies"] = {
            word: f"^{random.randint(1, 9)}.{random.randint(0, 9)}.0"
            for word in random.sample(("express", "react", "lodash", "axios", "jest", "vite"), 3)
        }
    return record


def _event(random: Random) -> JsonObject:
    kind = random.choice(("login", "logout", "click", "purchase", "error", "view", "signup"))
    payload: JsonObject = {"page": f"/{random.choice(('home', 'cart', 'search', 'about', 'products', 'help'))}"}
    if kind == "error":
        message = random.choice(("not found", "bad request", "timeout", "access denied"))
        payload = {"code": random.choice((400, 401, 403, 404, 500, 503)), "message": message}
    elif kind == "purchase":
        payload = {"product": random.choice(PRODUCTS), "amount": _money(random)}
    return {
        "event": kind,
        "timestamp": _timestamp(random),
        "user_id": random.randint(1, 9999),
        "payload": payload,
        "success": kind != "error",
    }


def _weather(random: Random) -> JsonObject:
    return {
        "city": random.choice(CITIES),
        "date": _date(random),
        "temperature": round(random.uniform(-20, 40), 1),
        "humidity": random.randint(10, 100),
        "conditions": random.choice(("sunny", "cloudy", "rain", "snow", "windy", "fog")),
        "forecast": [random.randint(-10, 35) for _ in range(random.randint(0, 5))],
    }


def _book(random: Random) -> JsonObject:
    noun = random.choice(("River", "Garden", "Moon", "Forest", "King", "Sea", "House", "Star"))
    adjective = random.choice(("Secret", "Last", "Silver", "Little", "Lost", "Quiet", "Golden"))
    return {
        "title": f"The {adjective} {noun}",
        "author": _name(random),
        "year": random.randint(1850, 2025),
        "pages": random.randint(40, 900),
        "genres": _some(random, ("fiction", "fantasy", "history", "science", "poetry"), 3),
        "available": random.random() < 0.6,
    }


def _free_value(random: Random, depth: int) -> Json:
    scalars: tuple[Callable[[], Json], ...] = (
        lambda: random.randint(0, 10 ** random.randint(1, 5)),
        lambda: round(random.uniform(-100, 100), random.randint(1, 3)),
        lambda: random.random() < 0.5,
        lambda: None,
        lambda: random.choice(WORDS),
        lambda: " ".join(random.sample(WORDS, random.randint(2, 4))),
        lambda: _name(random),
        lambda: _date(random),
    )
    shape = random.random()
    if depth > 0 and shape < 0.15:
        return _free_record(random, depth - 1)
    if depth > 0 and shape < 0.3:
        make = random.choice(scalars)
        return [make() for _ in range(random.randint(0, 5))]
    if depth > 1 and shape < 0.36:
        return [_free_record(random, depth - 2) for _ in range(random.randint(1, 3))]
    return random.choice(scalars)()


def _free_record(random: Random, depth: int = 2) -> JsonObject:
    keys = random.sample(WORDS, random.randint(1, 7))
    return {key: _free_value(random, depth) for key in keys}


MAKERS: dict[str, Callable[[Random], JsonObject]] = {
    "person": _person,
    "order": _order,
    "product": _product,
    "configuration": _configuration,
    "event": _event,
    "weather report": _weather,
    "book": _book,
    "record": _free_record,
}


def _layout(random: Random, value: Json) -> str:
    style = random.random()
    if style < 0.45:
        return json.dumps(value, indent=random.choice((2, 2, 4)))
    if style < 0.8:
        return json.dumps(value)
    return json.dumps(value, separators=(",", ":"))


def one_document(random: Random) -> str:
    """One JSON text, at times after a line that says what follows; ends with a newline."""
    kind = random.choice(tuple(MAKERS))
    make = MAKERS[kind]
    several = random.random() < 0.2
    value: Json = [make(random) for _ in range(random.randint(2, 4))] if several else make(random)
    if not several and random.random() < 0.1:
        value = {kind.replace(" ", "_"): value}
    heading = ""
    if random.random() < 0.3:
        heading = f"{'Several records' if several else kind.capitalize()} as JSON:\n"
    return f"{heading}{_layout(random, value)}\n"


def documents(count: int = DOCUMENTS, seed: int = SEED) -> Iterator[str]:
    """Yield `count` documents that depend on `seed` only (about 0.1 ms each)."""
    random = Random(seed)
    for _ in range(count):
        yield one_document(random)
