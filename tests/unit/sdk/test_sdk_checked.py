"""Where a number is wanted `true` is refused, at whatever depth, and everything else is read as before."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from knotwork.sdk import PluginConfig
from knotwork.sdk.checked import Checked


class Inner(Checked):
    type: Literal["inner"] = "inner"
    size: int | None = None


class Other(Checked):
    type: Literal["other"]
    size: float = 0.0


class Outer(Checked):
    whole: int = Field(default=1, ge=1, le=10)
    default: float = Field(default=1.0, ge=0)
    either: int | Annotated[str, Field(pattern="^[0-9]+%$")] = 0
    few: list[int] = Field(default=[])
    figures: dict[str, float] = Field(default={})
    bounded: Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern="^[0-9]+%$")] = 1
    inner: Inner | None = None
    many: tuple[Annotated[Inner | Other, Field(discriminator="type")], ...] = ()
    flag: bool = False
    anything: Any = None
    fields: int = 0
    metadata: int = 0


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"whole": True}, ("whole",)),
        ({"default": False}, ("default",)),
        ({"fields": True}, ("fields",)),
        ({"metadata": True}, ("metadata",)),
        ({"either": True}, ("either", "int")),
        ({"bounded": True}, ("bounded", "constrained-int")),
        ({"few": [1, True]}, ("few", 1)),
        ({"figures": {"a": True}}, ("figures", "a")),
        ({"inner": {"size": False}}, ("inner", "size")),
        ({"many": [{"type": "other", "size": True}]}, ("many", 0, "other", "size")),
    ],
    ids=lambda one: ".".join(str(part) for part in one) if isinstance(one, tuple) else "",
)
@pytest.mark.parametrize("model", [Outer, TypeAdapter(Outer)], ids=["model", "adapter"])
def test_true_is_no_number(model: Any, given: dict[str, Any], place: tuple[Any, ...]):
    check = model.validate_python if isinstance(model, TypeAdapter) else model.model_validate
    with pytest.raises(ValidationError) as caught:
        check(given)
    assert place in [error["loc"] for error in caught.value.errors()]
    assert caught.value.errors()[0]["type"] in ("int_type", "float_type")


def test_what_else_is_read_stays_the_same():
    made = Outer.model_validate(
        {
            "whole": "5",
            "default": "2.5",
            "either": "10%",
            "few": ["1"],
            "flag": 1,
            "anything": True,
            "many": [{"type": "inner"}],
        }
    )
    assert (made.whole, made.default, made.either, made.few, made.flag, made.anything) == (
        5,
        2.5,
        "10%",
        [1],
        True,
        True,
    )
    for wrong in ({"whole": "x"}, {"whole": 11}, {"whole": 1.5}, {"default": -1}):
        with pytest.raises(ValidationError):
            Outer.model_validate(wrong)


def test_what_is_told_of_a_model_stays_the_same():
    class Plain(BaseModel):
        whole: int = Field(default=1, ge=1, le=10, description="some")

    class Told(Checked):
        whole: int = Field(default=1, ge=1, le=10, description="some")

    assert {**Told.model_json_schema(), "title": ""} == {**Plain.model_json_schema(), "title": ""}
    assert Told().model_dump() == {"whole": 1}


def test_the_place_of_an_error_stays_the_same():
    class Plain(BaseModel):
        either: Annotated[int, Field(ge=1)] | float | Annotated[str, Field(pattern="^[0-9]+%$")] = 1

    class Told(Checked):
        either: Annotated[int, Field(ge=1)] | float | Annotated[str, Field(pattern="^[0-9]+%$")] = 1

    def places(model: type[BaseModel]) -> list[tuple[Any, ...]]:
        with pytest.raises(ValidationError) as caught:
            model.model_validate({"either": "x"})
        return [error["loc"] for error in caught.value.errors()]

    assert places(Told) == places(Plain)


def test_the_configuration_of_a_plugin_is_read_so():
    class Mine(PluginConfig):
        most: int = 3

    assert Mine.model_validate({"most": "4"}).most == 4
    with pytest.raises(ValidationError):
        Mine.model_validate({"most": True})
