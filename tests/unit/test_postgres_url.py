"""The one reading of a PostgreSQL URL: libpq's form and keys; refusals name what is wrong, never a password."""

import pytest

from app.storage.rows.postgres_url import parse


@pytest.fixture(autouse=True)
def _without_libpqs_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGTARGETSESSIONATTRS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgres://u:p@h/d", [("h", None)]),
        ("postgresql://u@h:6432/d", [("h", 6432)]),
        ("postgresql://u@[::1]:5433/d", [("::1", 5433)]),
        ("postgresql://u@%2Frun%2Fpostgresql/d", [("/run/postgresql", None)]),
        ("postgresql://u@/d?host=/run/postgresql", [("/run/postgresql", None)]),
        ("postgresql://u@a:1,b:2/d", [("a", 1), ("b", 2)]),
        ("postgresql://u@a,b/d?port=7", [("a", 7), ("b", 7)]),
        ("postgresql:///d?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql:///d", [(None, None)]),
    ],
)
def test_hosts_are_read_as_libpq_reads_them(url: str, hosts: list[tuple[str | None, int | None]]) -> None:
    target = parse(url)
    assert list(target.hosts) == hosts
    assert target.database == "d"
    assert target.session == ("read-write" if len(hosts) > 1 else "any")


def test_everything_may_be_percent_encoded_and_a_plus_is_a_plus() -> None:
    keys = "application_name=a+b&options=-csearch_path%3Dx&sslmode=require"
    target = parse(f"postgresql://us%40er:p%2Fa+%25@h/my%20db?{keys}")
    assert (target.user, target.password, target.database) == ("us@er", "p/a+%", "my db")
    assert (target.application_name, target.options) == ("a+b", "-csearch_path=x")
    assert target.tls == (("sslmode", "require"),)
    assert "p/a+%" not in repr(target) + str(target)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:hush@h/d?sslmod=require", "unknown key 'sslmod'.*sslmode"),
        ("postgresql://u:hush@h/d?sslmode=sometimes", "verify-full"),
        ("postgresql://u:hush@h/d?channel_binding=require", "channel_binding"),
        ("postgresql://u:hush@h/d?connect_timeout=soon", "whole number"),
        ("postgresql://u:hush@h:port/d", "'port'"),
        ("postgresql://u:hush@h:70000/d", "65535"),
        ("postgresql://u:hush@a,b,c/d?port=1,2", "2 ports for 3 hosts"),
        ("postgresql://u:hush@::1/d", "brackets"),
        ("postgresql://u:hush%@h/d", "%25"),
        ("postgresql://u:hush@h/d?sslmode", "without '='"),
    ],
)
def test_what_can_not_be_used_is_refused_by_a_sentence_without_the_password(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        parse(url)
    assert "hush" not in str(refused.value)
