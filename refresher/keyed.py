# ruff: noqa: S608 - what goes into SQL here are quoted names, literals and expressions
"""SQL that is keyed: a digest, a permutation of numbers, a choice of words. Pure.

Everything is one expression over pg_catalog: nothing can be made on the source, not even a
temporary function, and no extension may be asked for. The key is the setting
`countersign.mask_key` of the session, as 64 hexadecimal digits, and is in no text of SQL.

What depends on the key alone is in an uncorrelated subquery, which the server runs once for a
statement. What is used twice is bound by a subquery with OFFSET 0, which the planner leaves as it
is; without, it would write the expression out at each place, and run it there.
"""

import tomllib
from functools import cache
from importlib.resources import files

from installer.quoting import literal

KEY_SETTING = "countersign.mask_key"
KEY_BYTES = 32

_NARROW = 31  # bits whose products are in a bigint, and for whose halves a table is small
_PRIME = (1 << 32) + 15
_BLOCK = 64  # of SHA-256, in bytes (FIPS 180-4)
_INNER, _OUTER = 0x36, 0x5C  # RFC 2104, section 2
_EMPTY = "decode('', 'hex')"


def digest(domain: str, purpose: str, message: str) -> str:
    """HMAC-SHA-256 (RFC 2104) of `message`, which is SQL for a bytea, as a bytea of 32 bytes.

    What is hashed is the domain, a zero byte, the purpose, a zero byte and the message: equal
    messages have equal digests within a domain and a purpose, and nowhere else.
    """
    begin = f"{domain}\0{purpose}\0".encode()
    return f"sha256({_pad(_OUTER)} || sha256({_pad(_INNER, begin)} || {message}))"


def cascade(domain: str, purpose: str, message: str) -> str:
    """SHA-256 of a block with a key and of `message`: half the time of `digest`.

    The key is the HMAC of domain and purpose. Whoever sees a whole digest can continue it to that
    of a longer message. So it is for messages of one length (Bellare, Canetti and Krawczyk 1996),
    or for no more than 16 of its bytes (the augmented cascade of Bellare, Bernstein and Tessaro
    2016).
    """
    rest = "00" * (_BLOCK - KEY_BYTES)
    key = f"(SELECT {digest(domain, purpose, _EMPTY)} || decode('{rest}', 'hex'))"
    return f"sha256({key} || {message})"


def encoded(value: str) -> str:
    """A text as what is hashed of it, whatever the server's encoding."""
    return f"convert_to({value}, 'UTF8')"


def hexadecimal(value: str, digits: int) -> str:
    """The first `digits` digits of `value`, which is SQL for a bytea."""
    coded = f"encode(substr({value}, 1, {(digits + 1) // 2}), 'hex')"
    return f"left({coded}, {digits})" if digits % 2 else coded


def number(value: str) -> str:
    """The first 4 bytes of `value`, which is SQL for a bytea, as a bigint that is not negative."""
    return f"('x' || {hexadecimal(value, 8)})::bit(32)::bigint"


def bound(name: str, value: str, result: str) -> str:
    """`result`, which calls `value` by `name` as often as it likes."""
    return f"(SELECT {result} FROM (SELECT {value} AS {name} OFFSET 0) AS bound_{name})"


def permuted(domain: str, value: str, bits: int, *, tabled: bool) -> str:
    """A permutation of -2^bits..2^bits-1 that keeps the sign; `value` is SQL for a bigint in it.

    Two rounds of a Feistel network, whose functions are pseudo-random, stand between two cheap
    permutations. That is as strong as four rounds of Luby and Rackoff (1988), where two numbers
    seldom have the same half that goes into the next round (Naor and Reingold 1999). The proof
    of either ends where somebody knows 2^(bits/4) numbers and their masks.

    `tabled` has the rounds computed for every half before the first row, up to 31 bits: some
    20 ms, and then 0.2 µs for a row instead of 2. The masks are the same.
    """
    if bits > _NARROW:
        masked = _wide(domain, value, bits)
    else:
        masked = _narrow(domain, value, bits, tabled=tabled)
    message = literal(f"a number has more than {bits} bits, sign ")
    return (  # the error is a cast of what is no number, and does not show it
        f"CASE WHEN {value} >> {bits} = {value} >> 63"
        f" THEN {value} >> {bits} << {bits} | {masked}"
        f" WHEN {value} IS NOT NULL THEN ({message} || ({value} >> 63))::bigint END"
    )


def word(kind: str, byte: str) -> str:
    """A word of the list `kind`, chosen by `byte`, which is SQL for 0 to 255."""
    listed = words(kind)
    # Elements of type name have one size, and so are found without a search.
    return f"('{{{','.join(listed)}}}'::name[])[1 + {byte} % {len(listed)}]::text"


@cache
def words(kind: str) -> tuple[str, ...]:
    """The words that are chosen from, each plain letters."""
    text = files("refresher").joinpath("words.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)[kind].split())


def _pad(byte: int, behind: bytes = b"") -> str:
    """The key combined with `byte` and filled up to a block, then `behind`.

    get_byte() refuses a key that is too short.
    """
    rest = (bytes([byte]) * (_BLOCK - KEY_BYTES) + behind).hex()
    return (
        f"(SELECT decode(string_agg(lpad(to_hex(get_byte(k, i) # {byte}), 2, '0'), '' ORDER BY i)"
        f" || '{rest}', 'hex') FROM (SELECT decode(current_setting('{KEY_SETTING}'), 'hex') AS k)"
        f" AS key, generate_series(0, {KEY_BYTES - 1}) AS i)"
    )


def _narrow(domain: str, value: str, bits: int, *, tabled: bool) -> str:
    """`permuted` below the sign. What stands around the rounds are products with odd numbers.

    Two numbers whose products with a random odd one have the same high half are rare
    (Dietzfelbinger et al. 1997). Each table is looked up in once: what the second one yields has
    its index above it, which is the other half.
    """
    high = (bits + 1) // 2
    low = bits - high
    product = _product(domain, 0, value, bits)
    if tabled:
        upper, lower = f"({product} >> {low})", f"({product} & {_ones(low)})"
        index = f"({lower} # {_table(domain, 1, high, low)}[1 + {upper}])"
        mixed = f"({upper} # {_table(domain, 2, low, high, with_index=True)}[1 + {index}])"
    else:
        lower = f"p & {_ones(low)} # {_entry(domain, 1, f'(p >> {low})', low)}"
        halves = f"SELECT p >> {low} AS u, {lower} AS l FROM (SELECT {product} AS p OFFSET 0) AS p"
        both = f"l << {high} | (u # {_entry(domain, 2, 'l', high)})"
        mixed = f"(SELECT {both} FROM ({halves} OFFSET 0) AS halves)"
    return _product(domain, 3, mixed, bits)


def _wide(domain: str, value: str, bits: int) -> str:
    """`permuted` below the sign. What stands around the rounds are rounds with universal hashes."""
    high = (bits + 1) // 2
    low = bits - high
    right = f"({value} & {_ones(high)})"
    left = f"{value} >> {high} & {_ones(low)} # {_universal(domain, 0, right, low)}"
    state = f"SELECT {left} AS l, {right} AS r OFFSET 0"
    state = f"SELECT l, r # {_first(domain, 1, 'l', high)} AS r FROM ({state}) AS s OFFSET 0"
    state = f"SELECT l # {_first(domain, 2, 'r', low)} AS l, r FROM ({state}) AS s OFFSET 0"
    last = f"r # {_universal(domain, 3, 'l', high)}"
    return f"(SELECT l << {high} | ({last}) FROM ({state}) AS s)"


def _random(domain: str, turn: int, half: str) -> str:
    """32 pseudo-random bytes for `half`, SQL for 0..2^40-1, and a turn of the permutation."""
    return cascade(domain, "integer", f"int8send({turn << 40} | ({half}))")


def _product(domain: str, turn: int, value: str, bits: int) -> str:
    """The lowest `bits` of `value`, SQL for a bigint, multiplied by an odd number of the key's."""
    factor = f"(SELECT {_first(domain, turn, '0', bits)} | 1)"
    return f"({value} * {factor} & {_ones(bits)})"


def _universal(domain: str, turn: int, value: str, bits: int) -> str:
    """`bits` for `value`, 0..2^32-1: a line modulo a prime, slope and height being the key's."""
    slope, height = (f"(SELECT {_first(domain, turn, which, 31)})" for which in ("0", "1"))
    return f"(({value} * {slope} + {height}) % {_PRIME} & {_ones(bits)})"


def _first(domain: str, turn: int, half: str, bits: int) -> str:
    """The first `bits`, 32 at most, that are pseudo-random for `half`, as a bigint."""
    return f"({number(_random(domain, turn, half))} & {_ones(bits)})"


def _entry(domain: str, turn: int, half: str, bits: int) -> str:
    """What `_table` has for `half`; each digest is 16 entries."""
    pair = f"substr({_random(domain, turn, f'{half} >> 4')}, 1 + 2 * ({half} & 15)::integer, 2)"
    return f"(('x' || encode({pair}, 'hex'))::bit(16)::bigint & {_ones(bits)})"


def _table(domain: str, turn: int, size: int, bits: int, *, with_index: bool = False) -> str:
    """An array of 2^size numbers of so many pseudo-random bits, each below its index if asked."""
    entries = ", ".join(
        (f"(b << 4 | {i}) << {bits} | " if with_index else "")
        + f"((get_byte(h, {2 * i}) << 8 | get_byte(h, {2 * i + 1})) & {_ones(bits)})"
        for i in range(16)
    )
    blocks = f"generate_series(0, {(1 << size - 4) - 1}) AS b"
    digests = f"SELECT b, {_random(domain, turn, 'b')} AS h FROM {blocks} OFFSET 0"
    return f"(ARRAY(SELECT unnest(ARRAY[{entries}]) FROM ({digests}) AS digests))"


def _ones(bits: int) -> int:
    return (1 << bits) - 1
