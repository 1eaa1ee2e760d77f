"""From a strategy's JSON to the typed model: dialects A and B of the metadata language, strictly.

What a key means is in `keys`; here every key is either known or reported with its own path. A remark that is
to have no effect begins with an underscore.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from kuaimai.errors import ConfigError
from kuaimai.pipeline.cron import five_fields
from kuaimai.pipeline.qeasy import keys
from kuaimai.pipeline.qeasy.findings import Findings, near
from kuaimai.pipeline.qeasy.moments import read_time
from kuaimai.pipeline.qeasy.places import places_in
from kuaimai.pipeline.qeasy.strategy import (
    Batch,
    Condition,
    Direction,
    Field,
    Format,
    Grouping,
    Parser,
    Remedy,
    Side,
    Split,
    Strategy,
)

_DIRECTIONS: tuple[Direction, ...] = ("QUERY", "EXECUTE")
_TRUE, _FALSE = (True, 1, "1", "true"), (False, 0, "0", "false")
# Deeper than any form; a file that nests further is not a strategy.
_DEEPEST = 40
_CRON_FIELDS = 5
_TIMESTAMP = "timestamp:"


def read_strategy(path: Path) -> tuple[Strategy, Findings]:
    """Read a strategy file, and say everything that is wrong with it.

    Returns:
        The strategy as far as it can be understood, and the remarks; `refused` ones speak against it.

    Raises:
        ConfigError: the file cannot be read, or is no JSON.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as err:
        raise ConfigError(f"strategy {path} cannot be read: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ConfigError(f"strategy {path} is not UTF-8 text (byte {err.start})") from err
    return parse_strategy(text, path.stem, str(path))


def parse_strategy(text: str, name: str, file: str = "") -> tuple[Strategy, Findings]:
    """Do the same for the text of a strategy; `name` and `file` are what it is called in messages.

    Raises:
        ConfigError: the text is no JSON.
    """
    try:
        content = json.loads(
            text,
            parse_float=Decimal,
            parse_constant=_no_constant,
        )
    except json.JSONDecodeError as err:
        raise ConfigError(
            f"strategy {file or name} is not valid JSON: {err.msg} in line {err.lineno}, column {err.colno}"
        ) from err
    except (ValueError, RecursionError) as err:
        told = "it nests too deeply" if isinstance(err, RecursionError) else str(err)
        raise ConfigError(f"strategy {file or name} is not valid JSON: {told}") from err
    if _depth(content) > _DEEPEST:
        raise ConfigError(f"strategy {file or name} nests deeper than {_DEEPEST} levels: it is no strategy")
    places = places_in(text)
    findings = Findings(places)
    for path in places.twice:
        findings.refuse(path, "the same key stands twice in one object", "delete one")
    return _Reader(findings).file(content, name), findings


def _no_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level and deepest <= _DEEPEST:
        deepest += 1
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return deepest


def is_remark(key: str) -> bool:
    """Whether a key is a remark of the reader's own; but `_id` and the like may be values elsewhere."""
    return key.startswith("_")


class _Reader:
    """Turns decoded JSON into the model; what does not fit goes to the findings, and reading goes on."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.settings = 0

    # The file: one side, or both

    def file(self, content: Any, name: str) -> Strategy:
        source: Side | None = None
        target: Side | None = None
        collections: dict[str, str] = {}
        if isinstance(content, list):
            for number, one in enumerate(content):
                side = self._side(one, f"[{number}].", None)
                source, target = self._placed(side, f"[{number}]", source, target)
        elif not isinstance(content, dict):
            self.findings.refuse("", f"a strategy is a JSON object, not {_kind(content)}")
        elif "source" in content or "target" in content or "metadata" in content:
            wrapper = self._known(content, "", keys.FILE)
            name = self._text(wrapper, "name", "") or name
            collections = self._collections(wrapper)
            for key, direction in (("source", "QUERY"), ("target", "EXECUTE")):
                if wrapper.get(key) is not None:
                    side = self._wrapped(wrapper[key], f"{key}.", direction, wrapper.get(f"{key}_crontab"))
                    source, target = self._placed(side, key, source, target)
                elif f"{key}_crontab" in wrapper:
                    self.findings.refuse(f"{key}_crontab", f"there is no {key} that it belongs to")
            if "metadata" in wrapper:
                side = self._side(wrapper["metadata"], "metadata.", None, wrapper.get("crontab"))
                source, target = self._placed(side, "metadata", source, target)
        else:
            source, target = self._placed(self._side(content, "", None), "", source, target)
        return Strategy(name, source, target, collections, self.settings)

    def _placed(
        self, side: Side | None, where: str, source: Side | None, target: Side | None
    ) -> tuple[Side | None, Side | None]:
        if side is None:
            return source, target
        if side.direction == "QUERY":
            if source is not None:
                self.findings.refuse(where, "a second source", "one strategy has one source (effect QUERY)")
            return side, target
        if target is not None:
            self.findings.refuse(where, "a second target", "one strategy has one target (effect EXECUTE)")
        return source, side

    def _wrapped(self, content: Any, path: str, direction: str, crontab: Any) -> Side | None:
        """A side below `source` or `target`: its metadata, bare or beside its crontab."""
        if isinstance(content, dict) and "metadata" in content:
            wrapper = self._known(content, path, {key: keys.FILE[key] for key in _WRAPPED})
            crontab = wrapper.get("crontab", crontab)
            connector = self._connector(wrapper, path, direction)
            side = self._side(wrapper["metadata"], f"{path}metadata.", direction, crontab)
            return None if side is None else replace(side, connector=connector)
        return self._side(content, path, direction, crontab)

    def _connector(self, wrapper: Mapping[str, Any], path: str, direction: str) -> str:
        """The Airflow Connection of a target; a source's is `kuaimai_default`, for all pipelines."""
        given = wrapper.get("connector")
        if isinstance(given, str) and direction == "EXECUTE":
            return given.strip()
        if given not in (None, "", {}):
            told = "it has no effect here: credentials come from the Airflow Connection"
            self.findings.note(f"{path}connector", told)
        return ""

    def _collections(self, wrapper: Mapping[str, Any]) -> dict[str, str]:
        given = wrapper.get("collections")
        if given is None:
            return {}
        if not isinstance(given, dict):
            self._wrong("collections", given, "an object: strategy id → landed table")
            return {}
        made = {}
        for strategy, table in given.items():
            if isinstance(table, str) and table.isidentifier():
                made[strategy] = table
            else:
                self._wrong(f"collections.{strategy}", table, "the name of a table, e.g. kuaimai_sku")
        return made

    # One side

    def _side(self, content: Any, path: str, expected: str | None, crontab: Any = None) -> Side | None:
        if not isinstance(content, dict):
            self._wrong(path.rstrip("."), content, "an object with api, effect, request…")
            return None
        newer = sorted(keys.DIALECT_C & content.keys())
        if newer:
            self.findings.refuse(
                f"{path}{newer[0]}",
                f"{', '.join(newer)}: this is the dialect of the 2026 documentation, which no export has",
                "export the strategy's source view (源码视图), which has api, effect and request",
            )
        data = self._known({k: v for k, v in content.items() if k not in newer}, path, keys.METADATA)
        direction = self._direction(data, path, expected)
        api = self._text(data, "api", path)
        if not api:
            self.findings.refuse(f"{path}api", "it is missing", "without it this is a fragment, no strategy")
        if direction is None:
            return None
        split, batch = self._operation(data, path, direction)
        side = Side(
            path=path,
            direction=direction,
            api=api,
            method=(self._text(data, "method", path) or "POST").upper(),
            id=self._text(data, "id", path),
            number=self._text(data, "number", path),
            id_check=self._flag(data, "idCheck", path, default=True),
            has_id_check="idCheck" in data,
            request=self._fields(data.get("request"), f"{path}request"),
            other_request=self._fields(data.get("otherRequest"), f"{path}otherRequest"),
            response=self._fields(data.get("response"), f"{path}response"),
            other_response=self._other_response(data.get("otherResponse"), f"{path}otherResponse"),
            auto_fill=self._flag(data, "autoFillResponse", path, default=False),
            page_size=self._page_size(data.get("pagination"), f"{path}pagination"),
            condition=self._conditions(data, path),
            beat_flat=self._names(data.get("beatFlat"), f"{path}beatFlat"),
            formats=self._formats(data.get("formatResponse"), f"{path}formatResponse"),
            split=split,
            batch=batch,
            grouping=self._grouping(data.get("groupCalculate"), f"{path}groupCalculate"),
            remedy=self._remedy(data.get("omissionRemedy"), f"{path}omissionRemedy"),
            adapter=self._text(data, "adapter", path),
            crontab=self._crontab(data.get("crontab", crontab), f"{path}crontab"),
        )
        self._one_sided(data, path, direction)
        return side

    def _direction(self, data: Mapping[str, Any], path: str, expected: str | None) -> Direction | None:
        """`effect` says it; in the older dialect `type` does."""
        effect, kind = data.get("effect"), data.get("type")
        chosen = effect if effect is not None else kind
        where = f"{path}{'effect' if effect is not None else 'type'}"
        if chosen is None:
            if expected is None:
                self.findings.refuse(f"{path}effect", "it is missing", "write QUERY or EXECUTE")
            return _direction(expected)
        direction = _direction(chosen.upper() if isinstance(chosen, str) else None)
        if direction is None:
            told = f"{chosen!r} is neither QUERY nor EXECUTE"
            self.findings.refuse(where, told, near(str(chosen), _DIRECTIONS))
            return _direction(expected)
        if expected is not None and direction != expected:
            half = "source" if expected == "QUERY" else "target"
            self.findings.refuse(where, f"{direction} in the {half}", f"a {half} is {expected}")
        return direction

    def _one_sided(self, data: Mapping[str, Any], path: str, direction: Direction) -> None:
        """A setting of the other side would be ignored silently."""
        foreign = _SOURCE_ONLY if direction == "EXECUTE" else _TARGET_ONLY
        for key in foreign & data.keys():
            if data[key] not in (None, [], {}):
                half = "source" if direction == "EXECUTE" else "target"
                self.findings.refuse(f"{path}{key}", f"it belongs to the {half}", f"move it to the {half}")

    # Lists of fields

    def _fields(self, given: Any, path: str, parent: str = "") -> tuple[Field, ...]:
        if given is None:
            return ()
        if not isinstance(given, list):
            self._wrong(path, given, "a list of {field, type, value}")
            return ()
        entries: list[tuple[str, Mapping[str, Any], Field]] = []
        for number, one in enumerate(given):
            where = f"{path}[{number}]"
            if not isinstance(one, dict):
                self._wrong(where, one, "an object {field, type, value}")
                continue
            data = self._known(one, f"{where}.", keys.FIELD)
            made = self._field(data, where)
            if made is not None:
                entries.append((where, data, made))
        return self._nested(entries, parent)

    def _field(self, data: Mapping[str, Any], path: str) -> Field | None:
        name = data.get("field")
        if not isinstance(name, str) or not name.strip():
            if name is None:
                self.findings.refuse(f"{path}.field", "it is missing", "write the key to send")
            else:
                self._wrong(f"{path}.field", name, "the key to send, as text")
            return None
        return Field(
            name=name,
            path=path,
            type=self._type(data, path),
            value=data.get("value"),
            default=data.get("default"),
            required=self._flag(data, "is_required", f"{path}.", default=False),
            parsers=self._parsers(data.get("parser"), f"{path}.parser"),
            children=self._fields(data.get("children"), f"{path}.children", name),
            describe=self._text(data, "describe", f"{path}."),
        )

    def _nested(self, entries: list[tuple[str, Mapping[str, Any], Field]], parent: str) -> tuple[Field, ...]:
        """Put flat entries with a `parent` below it; where they are nested already it only repeats so."""
        names = {made.name for _, _, made in entries}
        below: dict[str, list[Field]] = {}
        kept: list[Field] = []
        for path, data, made in entries:
            above = data.get("parent")
            if above in (None, "", parent):
                kept.append(made)
            elif not isinstance(above, str):
                self._wrong(f"{path}.parent", above, "the name of a field")
            elif above not in names or above == made.name:
                self.findings.refuse(
                    f"{path}.parent", f"there is no field {above!r} beside it", near(above, sorted(names))
                )
            else:
                below.setdefault(above, []).append(made)
        fields = self._attached(kept, below)
        lost = sum(map(len, below.values()))
        if lost:
            name = next(iter(below))
            self.findings.refuse(f"{entries[0][0]}.parent", f"fields are each other's parents: {name!r}")
        seen: dict[str, Field] = {}
        for one in fields:
            if one.name in seen:
                told = f"{one.name!r} stands in {seen[one.name].path} already"
                self.findings.refuse(f"{one.path}.field", told, "delete one of them")
            seen[one.name] = one
        return fields

    def _attached(self, kept: Iterable[Field], below: dict[str, list[Field]]) -> tuple[Field, ...]:
        made = []
        for one in kept:
            inner = self._attached(below.pop(one.name, []), below)
            made.append(replace(one, children=(*one.children, *inner)) if inner else one)
        return tuple(made)

    def _type(self, data: Mapping[str, Any], path: str) -> str:
        given = data.get("type")
        if given is None:
            return "string"
        if not isinstance(given, str) or given.lower() not in keys.TYPES:
            self.findings.refuse(f"{path}.type", f"unknown type {given!r}", near(str(given), keys.TYPES))
            return "string"
        return given.lower()

    def _parsers(self, given: Any, path: str) -> tuple[Parser, ...]:
        if given in (None, "", {}, []):
            return ()
        if isinstance(given, str):
            given = {"name": given}
        if not isinstance(given, dict):
            self._wrong(path, given, "an object {name, params}")
            return ()
        self._count(given)
        named = given.get("name")
        if not isinstance(named, str) or not named.strip():
            self.findings.refuse(f"{path}.name", "it is missing", near("", keys.PARSERS))
            return ()
        return self._chain([name.strip() for name in named.split(",")], given, path)

    def _chain(self, names: list[str], given: Mapping[str, Any], path: str) -> tuple[Parser, ...]:
        allowed = {"name", *(param for name in names for param in keys.PARSERS.get(name, ()))}
        for name in names:
            if name not in keys.PARSERS:
                told = f"unknown parser {name!r}"
                self.findings.refuse(f"{path}.name", told, near(name, keys.PARSERS))
                return ()
            for param in keys.PARSERS[name]:
                if param in ("view", "edit") or (param == "params" and name.endswith(("Array", "String"))):
                    continue  # these have defaults
                if param not in given:
                    self.findings.refuse(f"{path}.{param}", f"{name} needs it")
        for key in given:
            # The platform writes an empty `params` also where a parser takes none.
            if key not in allowed and not is_remark(key) and given[key] not in (None, "", []):
                self._unknown(f"{path}.{key}", key, sorted(allowed))
        return tuple(
            Parser(
                name, {param: given[param] for param in keys.PARSERS[name] if given.get(param) is not None}
            )
            for name in names
        )

    # The rest of a side

    def _conditions(self, data: Mapping[str, Any], path: str) -> tuple[tuple[Condition, ...], ...]:
        copy, original = data.get("condition_bk"), data.get("condition")
        if copy not in (None, []) and copy != original:
            self.findings.refuse(
                f"{path}condition_bk",
                "whether the platform applies this second list of filters is not documented",
                "move what is to be applied into condition, and delete it",
            )
        given, path = original, f"{path}condition"
        if given in (None, []):
            return ()
        if not isinstance(given, list) or not all(isinstance(group, list) for group in given):
            self._wrong(path, given, "a list of lists: the outer one means OR, the inner one AND")
            return ()
        groups = []
        for number, group in enumerate(given):
            found = [self._condition(one, f"{path}[{number}][{place}]") for place, one in enumerate(group)]
            if not group:
                self.findings.refuse(f"{path}[{number}]", "an empty group lets every row pass", "delete it")
            groups.append(tuple(one for one in found if one is not None))
        return tuple(groups)

    def _condition(self, given: Any, path: str) -> Condition | None:
        if not isinstance(given, dict):
            self._wrong(path, given, "an object {field, logic, value}")
            return None
        data = self._only(given, path, keys.CONDITION)
        name, logic = self._text(data, "field", f"{path}."), self._text(data, "logic", f"{path}.")
        if not name:
            self.findings.refuse(f"{path}.field", "it is missing")
        if logic not in keys.LOGICS:
            told = f"unknown comparison {logic!r}" if logic else "it is missing"
            self.findings.refuse(f"{path}.logic", told, near(logic, keys.LOGICS))
            return None
        value = data.get("value")
        if value is None and logic not in ("notnull", "isnull"):
            self.findings.refuse(f"{path}.value", f"{logic} needs a value")
        if isinstance(value, dict | list) and logic not in ("in", "notin", "between"):
            self._wrong(f"{path}.value", value, "one text or number")
        if logic == "between" and len(_parts(value)) != 2:  # noqa: PLR2004 - both ends
            self._wrong(f"{path}.value", value, '"low,high", both inclusive')
        value = self._limits(value, logic, f"{path}.value")
        return Condition(
            path, name, logic, value, strict=self._flag(data, "strictMode", f"{path}.", default=False)
        )

    def _limits(self, value: Any, logic: str, path: str) -> Any:
        """What a row is compared with; what follows `timestamp:`, before one or all of them, are times."""
        parts = _parts(value)
        if any("{{" in one for one in parts if isinstance(one, str)):
            told = "a template: conditions are compared with what is written, whatever the window"
            self.findings.refuse(path, told, "write a fixed value, or make the window itself shorter")
            return value
        if not any(isinstance(one, str) and one.strip().startswith(_TIMESTAMP) for one in parts):
            return value
        times = []
        for one in parts:
            text = str(one).strip().removeprefix(_TIMESTAMP).strip()
            try:
                times.append(read_time(text))
            except ValueError:
                times.append(None)
            if times[-1] is None:
                self.findings.refuse(path, f"{text!r} is no time", "write yyyy-MM-dd HH:mm:ss")
        return times if logic in ("in", "notin", "between") else times[0]

    def _formats(self, given: Any, path: str) -> tuple[Format, ...]:
        made = []
        for number, one in enumerate(self._list(given, path, "a list of {old, new, format}")):
            where = f"{path}[{number}]"
            if not isinstance(one, dict):
                self._wrong(where, one, "an object {old, new, format}")
                continue
            data = self._only(one, where, keys.FORMAT)
            texts = {key: self._text(data, key, f"{where}.") for key in keys.FORMAT}
            for key, text in texts.items():
                if not text:
                    self.findings.refuse(f"{where}.{key}", "it is missing")
            made.append(Format(where, texts["old"], texts["new"], texts["format"]))
        return tuple(made)

    def _operation(
        self, data: Mapping[str, Any], path: str, direction: Direction
    ) -> tuple[Split | None, Batch | None]:
        given, path = data.get("operation"), f"{path}operation"
        if given in (None, {}, []):
            return None, None
        if not isinstance(given, dict):
            self._wrong(path, given, "an object {method, …}")
            return None, None
        named = self._text(given, "method", f"{path}.")
        if named not in keys.OPERATIONS:
            if named == "merge":
                told = "merging stored rows is named in one document only, and how is not said"
                self.findings.refuse(f"{path}.method", told, "use groupCalculate")
            else:
                told = f"unknown operation {named!r}" if named else "it is missing"
                self.findings.refuse(f"{path}.method", told, near(named, keys.OPERATIONS))
            return None, None
        inner = self._only(given, path, keys.OPERATIONS[named])
        if (named == "splitArray") != (direction == "QUERY"):
            half = "source" if named == "splitArray" else "target"
            self.findings.refuse(f"{path}.method", f"{named} belongs to the {half}")
            return None, None
        if named == "splitArray":
            array = self._text(inner, "arrayKey", f"{path}.")
            if not array:
                self.findings.refuse(f"{path}.arrayKey", "it is missing", "name the array to split")
            return Split(array), None
        rows = self._number(inner, "rows", f"{path}.")
        if rows is None and "rows" not in inner:
            self.findings.refuse(f"{path}.rows", "it is missing", "say how many rows make one request")
        return None, Batch(rows or 1, self._text(inner, "rowsKey", f"{path}.") or "array")

    def _grouping(self, given: Any, path: str) -> Grouping | None:
        if given in (None, {}, []):
            return None
        if not isinstance(given, dict):
            self._wrong(path, given, "an object {headerGroup, bodyGroup, …}")
            return None
        data = self._only(given, path, keys.GROUPING)
        calculate = data.get("calculate") or {}
        if not isinstance(calculate, dict):
            self._wrong(f"{path}.calculate", calculate, "an object: column → $sum, $max…")
            calculate = {}
        for column, how in calculate.items():
            if how not in keys.CALCULATIONS:
                where = f"{path}.calculate.{column}"
                told = f"unknown calculation {how!r}"
                self.findings.refuse(where, told, near(str(how), keys.CALCULATIONS))
        header = self._names(data.get("headerGroup"), f"{path}.headerGroup")
        if not header:
            self.findings.refuse(f"{path}.headerGroup", "it is missing", "name the columns of a document")
        body = self._text(data, "bodyName", f"{path}.")
        return Grouping(
            path=path,
            header=header,
            body=self._names(data.get("bodyGroup"), f"{path}.bodyGroup"),
            body_name=body,
            target_body=self._text(data, "targetBodyName", f"{path}.") or body or "body",
            most_lines=self._number(data, "bodyMaxLine", f"{path}."),
            calculate={str(column): how for column, how in calculate.items()},
        )

    def _remedy(self, given: Any, path: str) -> Remedy | None:
        if given in (None, {}, []):
            return None
        if not isinstance(given, dict):
            self._wrong(path, given, "an object {crontab, takeOverRequest}")
            return None
        data = self._only(given, path, keys.REMEDY)
        if not data.get("crontab"):
            self.findings.refuse(f"{path}.crontab", "it is missing", "say when to read again")
        return Remedy(
            self._crontab(data.get("crontab"), f"{path}.crontab"),
            self._fields(data.get("takeOverRequest"), f"{path}.takeOverRequest"),
        )

    def _other_response(self, given: Any, path: str) -> dict[str, Any]:
        """An object, or a list of fields: both forms occur."""
        if isinstance(given, list):
            fields = self._fields(given, path)
            made = {one.name: one.value for one in fields}
            paths = {one.name: f"{one.path}.field" for one in fields}
        elif isinstance(given, dict):
            made = {key: value for key, value in given.items() if not is_remark(key)}
            paths = {key: f"{path}.{key}" for key in made}
            self._count(made)
        else:
            if given is not None:
                self._wrong(path, given, "an object {StatusKey, StatusValue, DataKey, PageKey}")
            return {}
        for key, where in paths.items():
            if key in keys.ATTACHMENTS:
                if made[key] not in (None, False, "", "false", []):
                    told = "attachments are not downloaded"
                    self.findings.refuse(where, told, "read them in a task behind the asset")
            elif key not in keys.OTHER_RESPONSE:
                self._unknown(where, key, keys.OTHER_RESPONSE)
        return made

    def _page_size(self, given: Any, path: str) -> int | None:
        if given is None:
            return None
        if not isinstance(given, dict):
            self._wrong(path, given, "an object {pageSize}")
            return None
        return self._number(self._only(given, path, keys.PAGINATION), "pageSize", f"{path}.")

    def _crontab(self, given: Any, path: str) -> str:
        if given in (None, ""):
            return ""
        if not isinstance(given, str) or len(given.split()) != _CRON_FIELDS:
            self.findings.refuse(
                path, f"{given!r} is no crontab of five fields", "write minute hour day month weekday"
            )
            return ""
        try:
            five_fields(given)
        except ValueError as err:
            self.findings.refuse(path, str(err))
            return ""
        return given.strip()

    # Single values

    def _known(self, given: Mapping[str, Any], path: str, known: Mapping[str, keys.Key]) -> dict[str, Any]:
        """Return the keys that are used; report the others."""
        data: dict[str, Any] = {}
        for key, value in given.items():
            if is_remark(key):
                continue
            self.settings += 1
            if key not in known:
                self._unknown(
                    f"{path}{key}", key, [one for one, fate in known.items() if fate.fate == "used"]
                )
            elif known[key].fate == "refused" and value not in (None, False, "", [], {}):
                self.findings.refuse(f"{path}{key}", known[key].why, known[key].instead)
            elif known[key].fate == "used":
                data[key] = value
            elif path.count("[") == 0 and value not in (None, ""):
                self.findings.note(f"{path}{key}", f"it has no effect here: {known[key].why}")
        return data

    def _only(self, given: Mapping[str, Any], path: str, known: Iterable[str]) -> dict[str, Any]:
        """Return the known keys of a small object; report the others."""
        return self._known(given, f"{path}.", dict.fromkeys(known, keys.Key("used")))

    def _count(self, given: Mapping[str, Any]) -> None:
        self.settings += sum(not is_remark(key) for key in given)

    def _unknown(self, path: str, key: str, known: Iterable[str]) -> None:
        advice = keys.ASTRAY.get(key) or near(key, known)
        self.findings.refuse(path, f"unknown key {key!r}", f"{advice}; to have no effect, write _{key}")

    def _wrong(self, path: str, given: Any, wanted: str) -> None:
        self.findings.refuse(path, f"{_kind(given)} where {wanted} belongs")

    def _text(self, data: Mapping[str, Any], key: str, path: str) -> str:
        given = data.get(key)
        if given is None:
            return ""
        if not isinstance(given, str):
            self._wrong(f"{path}{key}", given, "text")
            return ""
        return given.strip() if key != "describe" else given

    def _flag(self, data: Mapping[str, Any], key: str, path: str, *, default: bool) -> bool:
        given = data.get(key)
        if given is None or given == "":
            return default
        text = given.lower() if isinstance(given, str) else given
        if not isinstance(text, dict | list | Decimal) and text in _TRUE + _FALSE:
            return text in _TRUE
        self._wrong(f"{path}{key}", given, "true or false")
        return default

    def _number(self, data: Mapping[str, Any], key: str, path: str) -> int | None:
        given = data.get(key)
        if given is None or given == "":
            return None
        if isinstance(given, bool) or not str(given).isdecimal() or not 0 < int(str(given)[:12]) <= 10**6:
            self._wrong(f"{path}{key}", given, "a whole number from 1 to 1000000")
            return None
        return int(given)

    def _names(self, given: Any, path: str) -> tuple[str, ...]:
        if isinstance(given, str) and given:
            given = given.split(",")
        found = self._list(given, path, "a list of names")
        for number, one in enumerate(found):
            if not isinstance(one, str) or not one.strip():
                self._wrong(f"{path}[{number}]", one, "a name")
        return tuple(one.strip() for one in found if isinstance(one, str) and one.strip())

    def _list(self, given: Any, path: str, wanted: str) -> list[Any]:
        if given in (None, "", {}):
            return []
        if not isinstance(given, list):
            self._wrong(path, given, wanted)
            return []
        return given


_WRAPPED = ("metadata", "crontab", "connector", "name")
_SOURCE_ONLY = frozenset(
    {"condition", "beatFlat", "formatResponse", "omissionRemedy", "autoFillResponse", "pagination"}
)
_TARGET_ONLY = frozenset({"groupCalculate"})

_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true/false"),
    ((int, Decimal), "a number"),
    (str, "text"),
    (list, "a list"),
    (dict, "an object"),
)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return next(name for kind, name in _KINDS if isinstance(value, kind))


def _direction(text: Any) -> Direction | None:
    return next((one for one in _DIRECTIONS if one == text), None)


def _parts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else str(value).split(",")
