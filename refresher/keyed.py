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
ROUNDS = 4
"""Of the permutation; four make a strong one of pseudo-random functions (Luby and Rackoff 1988)."""

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


def text_digest(domain: str, purpose: str, value: str) -> str:
    """`digest` of `value`, which is SQL for a text."""
    return digest(domain, purpose, f"convert_to({value}, 'UTF8')")


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


def permuted(domain: str, value: str, bits: int) -> str:
    """A permutation of -2^bits..2^bits-1 that keeps the sign; `value` is SQL for a bigint in it.

    A Feistel network: each of two halves in turn is combined with a keyed digest of the other.
    The key of a domain is an HMAC. A round's message has a fixed length, so that the digest of key
    and message is enough: there is nothing to append.
    """
    low = (bits + 1) // 2
    key = f"(SELECT {digest(domain, 'integer', _EMPTY)})"
    state = f"SELECT n >> 63 AS s, n # (n >> 63) AS m FROM (SELECT {value} AS n) AS number"
    state = (
        f"SELECT s, {_within(bits)} >> {low} AS l, m & {_ones(low)} AS r FROM ({state}) AS sized"
    )
    for turn in range(1, ROUNDS + 1):
        half, other, width = ("l", "r", bits - low) if turn % 2 else ("r", "l", low)
        message = f"int8send({other} | {turn << 40})"  # a half has 32 bits at most
        changed = f"{half} # ({number(f'sha256({key} || {message})')} & {_ones(width)})"
        state = f"SELECT s, {other}, {changed} AS {half} FROM ({state} OFFSET 0) AS turn"
    return f"(SELECT ((l << {low}) | r) # s FROM ({state} OFFSET 0) AS permuted)"


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


def _within(bits: int) -> str:
    """`m`, or an error of the server's that does not show it: a cast of what is no number."""
    message = literal(f"a number has more than {bits} bits, sign ")
    return f"(CASE WHEN m <= {_ones(bits)} THEN m WHEN m > 0 THEN ({message} || s)::bigint END)"


def _ones(bits: int) -> int:
    return (1 << bits) - 1
