"""The names by which a caller chooses among adapters."""

from collections.abc import Mapping, Sequence


def named(adapter_names: Sequence[str] | str, there: Mapping[str, list[str]]) -> list[str]:
    """Names of adapters, one or more as the caller gives them, each once.

    Args:
        there: the adapters that are loaded, by stage.

    Raises:
        ValueError: for a name that is given twice, or that no adapter has.
    """
    names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"adapter_names holds {', '.join(twice)} more than once; name each adapter once, and say how much by its weight")
    unknown = sorted(set(names) - {name for loaded in there.values() for name in loaded})
    if unknown:
        raise ValueError(f"no adapter is called {', '.join(unknown)}; loaded are: {dict(there) or 'none'}")
    return names
