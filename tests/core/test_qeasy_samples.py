"""The given strategies: each compiles to exactly the requests that are prescribed, or is refused."""

from __future__ import annotations

import json

import pytest
import strategy_cases as cases

from kuaimai.errors import ConfigError
from kuaimai.pipeline.qeasy.compiling import load_strategy
from kuaimai.pipeline.qeasy.lint import lint_strategy
from kuaimai.pipeline.qeasy.rendering import render_requests

pytestmark = pytest.mark.skipif(cases.SAMPLES is None, reason="the given strategies are not here")

FILES = sorted(cases.SAMPLES.glob("*.json")) if cases.SAMPLES else []

# What each one asks for on page 2 of a run from 10:00 to 10:05: parameters, and those kept out of the body.
KINGDEE = {"Limit": "200", "StartRow": "200", "TopRowCount": 0}
PRESCRIBED = {
    "00-seed": {"refreshToken": "<REDACTED>"},
    "10-bbs703": {**KINGDEE, "FormId": "BD_Account"},
    "11-bbs724": {**KINGDEE, "FormId": "BD_UNIT", "FilterString": f"FApproveDate>='{cases.START}'"},
    "12-bbs766": {**KINGDEE, "FormId": "ECC_Shop"},
    "14-bbs715": {},
    "20-juejin": {"appId": "<APP_ID>", "entryId": "<ENTRY_ID>", "limit": "100"},
    "21-juejin": {"orgId": "<ORG_ID>", "page": "2"},
    "23-juejin": {"page_index": "2"},
    "30-juejin": {"page_index": "2", "page_size": "100", "modified_begin": cases.START},
    "45-docs": {},
    "62-php": {"pageNo": 2, "pageSize": 100},
}
TARGETS = {"01-seed", "54-docs"}
# What has to be said about the others: the path, and the reason.
REFUSED = {
    "02-seed": ("metadata.schedule: unknown key", "metadata.api: it is missing"),
    "24-cnblogs": ("metadata.request_template: unknown key", "listed under request"),
    "26-qliang": ("metadata.request_values: unknown key", "listed under request"),
    "28-strategy": ("metadata.source_api: unknown key", "metadata.mapping: unknown key"),
    "29-strategy": ("metadata.source_crontab: unknown key", "metadata.mapping: unknown key"),
    "31-juejin": ("metadata.request_template: unknown key", "metadata.effect: it is missing"),
    "33-juejin": ("metadata.request_template: unknown key", "metadata.effect: it is missing"),
    "40-docs": ("metadata.app_secret: unknown key", "belongs into the Airflow Connection"),
    "41-docs": ("metadata.otherapi: unknown key", "entries of otherRequest"),
    "42-docs": ("metadata.api: it is missing",),
    "44-docs": ("metadata.api: it is missing",),
    "47-docs": ("metadata.api: it is missing",),
    "49-docs": ("metadata.api: it is missing",),
    "51-docs": ("metadata.callBackStrategy", "let the second strategy read"),
    "53-docs": ("metadata.id: it is missing", "name the primary key"),
    "55-docs": ("metadata.metadata: unknown key", "metadata.api: it is missing"),
    "57-docs": ("metadata.process_code: unknown key", "metadata.api: it is missing"),
    "58-docs": ("metadata.params: unknown key", "metadata.api: it is missing"),
    "59-bbs797": ("metadata.examples: unknown key", "metadata.api: it is missing"),
    "60-docs": ("metadata.diffMode", "metadata.id: it is missing"),
}


def short(path) -> str:
    return "-".join(path.stem.split("-")[:2])


@pytest.mark.parametrize("path", FILES, ids=short)
def test_each_compiles_to_its_requests_or_is_refused_with_its_reasons(path):
    name = short(path)
    report = lint_strategy(path)
    if name in REFUSED:
        with pytest.raises(ConfigError) as refused:
            load_strategy(path)
        told = str(refused.value)
        assert path.name in told
        for reason in REFUSED[name]:
            assert reason in told
        assert not report.compiles
        assert report.coverage < 100
        return
    compiled = load_strategy(path)
    made = render_requests(compiled, cases.WINDOW, page=2)
    assert report.compiles
    assert report.coverage >= 90
    if name in TARGETS:
        assert (made.source, made.writes) == (None, ())
    else:
        assert made.source is not None
        assert made.source.params == PRESCRIBED[name]
        assert made.source.verb == "POST"


def test_every_given_strategy_is_in_one_of_the_lists():
    assert {short(path) for path in FILES} == {*PRESCRIBED, *TARGETS, *REFUSED}


def test_the_two_strategies_of_the_article_run_as_they_stand():
    for name in ("00", "01"):
        (path,) = cases.SAMPLES.glob(f"{name}*.json")
        report = lint_strategy(path)
        assert (report.runs, report.coverage) == (True, 100)


def fields(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"field": name, "value": value} for name, value in values.items()]


@pytest.mark.parametrize(
    ("name", "key", "page", "asked"),
    [
        (
            "24",
            "request_template",
            3,
            {"page_index": "3", "page_size": "50", "start_time": cases.START, "end_time": cases.END},
        ),
        (
            "26",
            "request_values",
            1,
            {
                "start_date": str(cases.START_SECOND),
                "end_date": str(cases.START_SECOND + 300),
                "page_size": "200",
            },
        ),
        (
            "31",
            "request_template",
            1,
            {
                "page_index": "1",
                "page_size": "50",
                "modified_begin": cases.START,
                "modified_end": cases.END,
                "status": "Confirmed",
            },
        ),
        ("33", "request_template", 2, {"page_index": "2", "page_size": "50", "modified_begin": cases.START}),
        (
            "58",
            "params",
            1,
            {"start_time": str(cases.START_SECOND - 600_000), "end_time": str(cases.START_SECOND - 59_700)},
        ),
    ],
)
def test_request_templates_render_to_the_prescribed_values(name, key, page, asked):
    given = cases.sample(name)
    made = cases.rendered(cases.source(request=fields(given[key])), page=page)
    assert made.source.params == asked
    if name == "26":  # the list asks for details by code, under the list's own key
        assert made.details == ()


def test_window_in_milliseconds():
    given = cases.sample("57")
    made = cases.rendered(cases.source(request=fields(given)))
    assert made.source.params["start_time"] == f"{cases.START_SECOND}000"
    assert made.source.params["end_time"] == f"{cases.START_SECOND + 300}000"


def test_detail_api_of_the_documents():
    made = cases.rendered(cases.source(id="code", **cases.sample("42")), rows=[{"code": "DO-1"}])
    assert [(one.api, one.params) for one in made.details] == [
        ("gy.erp.trade.deliverys.detail.get", {"code": "DO-1"})
    ]


def test_kuaimai_details_of_the_documents():
    given = cases.sample("41")
    other = fields({name: given[name] for name in ("otherapi", "detailkey", "detailkey1", "detailkey2")})
    asked = fields({name: given[name] for name in ("pageNo", "pageSize", "timeType", "startModified")})
    strategy = cases.source(
        api="purchase.order.query",
        adapter=given["adapter"],
        request=asked,
        otherRequest=other,
        otherResponse=given["otherResponse"],
    )
    made = cases.rendered(strategy, rows=[{"id": 3940000000000001}], page=2)
    assert made.source.params == {
        "pageNo": "2",
        "pageSize": "1",
        "timeType": "upd_time",
        "startModified": "2024-04-16 23:26:43",
    }
    assert made.source.other == {}
    (detail,) = made.details
    assert (detail.api, detail.params) == ("purchase.order.get", {"id": "3940000000000001"})


def test_omission_remedy_replaces_what_it_takes_over():
    window = fields({"start_time": "{{LAST_SYNC_TIME|datetime}}", "page": "1"})
    made = cases.rendered(cases.source(request=window, **cases.sample("44")))
    assert made.source.params == {"start_time": cases.START, "page": "1"}
    assert made.remedy.params == {"start_time": "2026-03-01 09:05:09", "page": "1"}


def test_beat_flat_of_the_documents():
    given = cases.sample("47")
    made = cases.rendered(cases.source(id="no", number="no", beatFlat=given["beatFlat"]), rows=[given["_in"]])
    assert [row for _, row in made.shaped.rows] == given["_out"]
    assert [key for key, _ in made.shaped.rows] == ["OUT20210001-1", "OUT20210001-2"]


def test_formats_of_the_documents():
    row = {"id": "1", "delivery_date": "2024-03-15 14:30:00", "unit_price": "19.9956", "quantity": "10.8"}
    made = cases.rendered(cases.source(**cases.sample("49")), rows=[row])
    ((_, shaped),) = made.shaped.rows
    assert shaped["delivery_date_short"] == "2024-03-15"
    assert str(shaped["unit_price_rounded"]) == "20.00"
    assert shaped["quantity_int"] == 10


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ({"io_id": "100001", "items": [{"name": "活动一"}, {"name": "活动二"}]}, 2),
        ({"io_id": "100001", "items": [{"name": "活动一"}, {"name": "别的"}]}, None),  # strict: one row fails
        ({"io_id": "9512", "items": [{"name": "别的"}]}, 1),
        ({"io_id": "7", "items": [{"name": "示例桌游"}, {"name": "别的"}]}, 1),  # only the matching row stays
        ({"io_id": "7", "items": [{"name": "别的"}]}, None),
    ],
)
def test_conditions_of_the_documents(row, kept):
    made = cases.rendered(cases.sample("45"), rows=[row])
    if kept is None:
        assert (made.shaped.rows, made.shaped.filtered) == ((), (row["io_id"],))
    else:
        ((_, shaped),) = made.shaped.rows
        assert len(shaped["items"]) == kept


def test_kingdee_lookup_by_columns():
    given = {**cases.sample("53"), "id": "FSupplierId"}
    made = cases.rendered(given, page=3)
    assert made.source.params == {
        "FSupplierId": "FSupplierId",
        "FNumber": "FNumber",
        "FCreateOrgId_FNumber": "FCreateOrgId.FNumber",
    }
    assert made.source.other == {"FormId": "BD_Supplier", "FilterString": f"FAuditDate > '{cases.START}'"}


def test_form_write_keeps_the_connectors_parameters_out_of_the_body():
    made = cases.rendered(
        cases.source(), cases.sample("54"), rows=[{"id": 1, "FName": "甲", "FNumber": "S1"}]
    )
    (write,) = made.writes
    assert write.params == {"textField_ku6aw61g": "甲", "textField_ku6aw61h": "S1"}
    assert write.other == {"appType": "<APP>", "systemToken": "<SECRET>", "formUuid": "FORM-XXXXXXXX"}
    assert write.api == "/v1.0/yida/forms/instances"


def test_pull_of_one_element_per_row():
    made = cases.rendered(
        cases.sample("62"),
        rows=[{"id": 5, "billno": "B5", "entryentity": [{"qty": 1}, {"qty": 2}]}],
    )
    assert [(key, row["billno"], row["entryentity"]) for key, row in made.shaped.rows] == [
        ("5-1", "B5-1", {"qty": 1}),
        ("5-2", "B5-2", {"qty": 2}),
    ]


class Landed:
    """A landed table with one row."""

    def find(self, table, where, field):
        self.asked = (table, dict(where), field)
        return "E-77"


def test_functions_of_the_forum():
    examples = cases.sample("59")["examples"]
    row = {
        "FOrgId": "100",
        "price": "12.50",
        "qty": 3,
        "details_list": [{"tax": "0.13", "qty": 2}, {"tax": None, "qty": "0.5"}],
        "检索的字段": "这里有检索文本",
        "匹配时的字段": "甲",
        "不匹配时字段A": "乙",
        "outer_no": "PO-1",
    }
    assert cases.value(examples[0]) == "2026-03-01 09:50:00"
    assert str(cases.value(examples[1], details_list={"tax": "0.13"})) == "13.00"
    assert str(cases.value(examples[2], **row)) == "37.50"
    assert cases.value(examples[2], FOrgId="200") == "201"
    assert cases.value(examples[2], FOrgId="300") == "300"
    assert str(cases.value(examples[3], **row)) == "2.5"
    assert cases.value(examples[4], **row) == "甲"
    assert cases.value(examples[4], **{**row, "检索的字段": "没有"}) == "乙"
    landed = Landed()
    text = examples[5].replace("8e620793-bebb-3167-95a4-9030368e5262", "s")
    assert cases.value(text, landed, outer_no="PO-1", details_list={"goods_no": "G'1"}) == "E-77"
    assert landed.asked == (
        "landed",
        {"FBillNo": "PO-1", "FMaterialId_FNumber": "G'1"},
        "FPOOrderEntry_FEntryId",
    )


def test_mapping_of_a_published_strategy():
    given = cases.sample("29")["mapping"]
    lookup = given["material_entity.materialid_id"].replace("1fbda962-66f8-3cba-914f-26119e235199", "s")
    document = cases.written(
        [
            ("billdate", given["billdate"]),
            {
                "field": "material_entity",
                "type": "array",
                "value": given["material_entity"],
                "children": [
                    {"field": "materialid_id", "value": lookup},
                    {"field": "applyqty", "value": given["material_entity.applyqty"]},
                ],
            },
        ],
        {"created": 1772330400000, "details_list": [{"spec_no": "A", "real_num": 2}]},
        lookups=Landed(),
        collections={"s": "landed"},
    )
    assert document == {
        "billdate": "2026-03-01",
        "material_entity": [{"materialid_id": "E-77", "applyqty": "2"}],
    }


def test_report_is_text_for_a_terminal():
    (path,) = cases.SAMPLES.glob("30*.json")
    told = lint_strategy(path).pretty()
    assert "21 of 22 settings supported (95 %)" in told
    assert "metadata.request[1].value: 100 rows a page, and the API gives at most 25" in told
    assert json.loads(path.read_text(encoding="utf-8"))
