"""Every key of the metadata language that is known, and what becomes of it here.

One place for the reader, the linter and the table in docs/qeasy.md. `used` keys are compiled; `idle` keys
have no effect here, which the linter says; `refused` keys would change what the strategy does, and nothing
here can do it, so the strategy is refused rather than run without them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Fate = Literal["used", "idle", "refused"]


class Key(NamedTuple):
    """A known key: what becomes of it, and for idle and refused ones why and what to do instead."""

    fate: Fate
    why: str = ""
    instead: str = ""


_USED = Key("used")

METADATA: dict[str, Key] = {
    "api": _USED,
    "effect": _USED,
    "type": _USED,
    "method": _USED,
    "id": _USED,
    "number": _USED,
    "name": Key("idle", "the display name has no behaviour"),
    "idCheck": _USED,
    "request": _USED,
    "otherRequest": _USED,
    "response": _USED,
    "otherResponse": _USED,
    "autoFillResponse": _USED,
    "pagination": _USED,
    "condition": _USED,
    "condition_bk": _USED,
    "beatFlat": _USED,
    "formatResponse": _USED,
    "operation": _USED,
    "groupCalculate": _USED,
    "omissionRemedy": _USED,
    "adapter": _USED,
    "crontab": _USED,
    "delay": Key("idle", "the shared request budget paces requests, not a pause between pages"),
    "buildModel": Key("idle", "tables are made on the first load"),
    "callBackStrategy": Key(
        "refused",
        "pushing the result into another strategy's store is not supported",
        "let the second strategy read this one's table, scheduled on its asset",
    ),
    "diffMode": Key(
        "refused",
        "a snapshot diff is not part of a strategy here",
        "mirror the method with a YAML pipeline, which marks what is gone, and compare in SQL",
    ),
    "autoCheck": Key(
        "refused", "auditing in Kingdee after the save needs its adapter", "audit in a task behind the asset"
    ),
    "distributionOrg": Key(
        "refused", "Kingdee's distribution needs its adapter", "distribute in a task behind the asset"
    ),
    "isUploadFile": Key("refused", "attachments are not copied", "copy them in a task behind the asset"),
}

# Keys of the newer documentation (dialect C), which no exported strategy has.
DIALECT_C = frozenset(
    {
        "requestParams",
        "otherRequestParams",
        "otherResponseParams",
        "writeMode",
        "idempotency",
        "retryPolicy",
        "errorHandling",
        "fieldMapping",
    }
)

FIELD: dict[str, Key] = {
    "field": _USED,
    "type": _USED,
    "value": _USED,
    "is_required": _USED,
    "parent": _USED,
    "children": _USED,
    "parser": _USED,
    "default": _USED,
    "label": _USED,
    "describe": _USED,
    "id": Key("idle", "a row's id in the platform's form"),
    "display": Key("idle", "a hint for the platform's grid"),
    "enableDisplay": Key("idle", "a hint for the platform's grid"),
    "mapping": Key(
        "refused",
        "a static value map lives on the platform, not in the strategy",
        "write it as _function CASE … WHEN … END",
    ),
}

# Beside `metadata`, or around the two sides of a strategy. `collections` is ours: it names the landed table
# that stands for another strategy's store in `_findCollection`.
FILE: dict[str, Key] = {
    "name": _USED,
    "metadata": _USED,
    "source": _USED,
    "target": _USED,
    "crontab": _USED,
    "source_crontab": _USED,
    "target_crontab": _USED,
    "collections": _USED,
    "connector": _USED,
}

# Words that are met where a key belongs, and what they stand for.
ASTRAY: dict[str, str] = {
    **dict.fromkeys(
        ("request_template", "request_values", "params"),
        "parameters are listed under request, each as {field, value}",
    ),
    **dict.fromkeys(
        ("host", "app_key", "app_secret", "company_id", "token", "refresh_token"),
        "this belongs into the Airflow Connection kuaimai_default, not into a file",
    ),
    **dict.fromkeys(
        ("otherapi", "detailkey", "detailkey1", "detailkey2", "detailApi"),
        "details are set up as entries of otherRequest: {field, value}",
    ),
    **dict.fromkeys(("schedule", "task"), "the rhythm is `crontab`, five fields"),
    **dict.fromkeys(
        ("source_api", "target_api", "source_crontab", "target_crontab"),
        "write {source: {metadata, crontab}, target: {metadata, crontab}}",
    ),
    "mapping": "the target's fields are listed under its request, each as {field, value}",
    "formResponse": "did you mean 'formatResponse'?",
}

CONDITION = ("field", "logic", "value", "strictMode")
FORMAT = ("old", "new", "format")
REMEDY = ("crontab", "takeOverRequest", "adapter")
PAGINATION = ("pageSize",)
GROUPING = ("headerGroup", "bodyGroup", "bodyName", "targetBodyName", "bodyMaxLine", "calculate")
OPERATIONS: dict[str, tuple[str, ...]] = {
    "splitArray": ("method", "arrayKey"),
    "batchArraySave": ("method", "rows", "rowsKey"),
}
PARSERS: dict[str, tuple[str, ...]] = {
    "StringToArray": ("params",),
    "ArrayToString": ("params",),
    "ArrayUnique": (),
    "ConvertObjectParser": ("params",),
    "ConvertTwoStageObjectParser": ("params1", "params2"),
    "ConvertJson": (),
    "K3WiseHeiHuCustomParser": ("params",),
    "workflowRequestTableFields": ("view", "edit", "fieldId"),
}
TYPES = (
    "string",
    "int",
    "integer",
    "float",
    "number",
    "bool",
    "boolean",
    "object",
    "array",
    "datetime",
    "date",
    "timestamp",
)
LOGICS = (
    "eq",
    "neq",
    "gt",
    "egt",
    "lt",
    "elt",
    "like",
    "notlike",
    "between",
    "notnull",
    "isnull",
    "in",
    "notin",
)
CALCULATIONS = ("$sum", "$avg", "$min", "$max", "$push", "$addToSet", "$first", "$last")
OTHER_RESPONSE = ("StatusKey", "StatusValue", "DataKey", "PageKey")
ATTACHMENTS = ("DownloadAttachment", "AttachmentFields", "downloadRequest", "downloadapi")
